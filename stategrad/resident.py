"""Arrays of States that stay with the compiled function that wrote them until somebody else wants them.

A training loop calls one function again and again. What it wrote is what it takes next: the list that XLA
gave is handed back as it is, and goes into the slots of the States only when another call or a reader needs
it.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat, starmap
from typing import Any, Protocol

from .jax_compat import copied

LOCK = threading.RLock()
"""Held from gather to scatter of a compiled call, and while an array that a State alone owns is handed out.
"""


class _Slot(Protocol):
    array: Any


class Operands:
    """What a compiled function is called with: two lists that stay the same objects from call to call.

    Args:
        owner: the plan whose operands these are. When it is gone, they are not kept for another call.

    Attributes:
        given: holds one list: the arrays that are donated, after a call those that took their place.
        rest: positional and keyword arguments, which are there only while a call runs, and, if States or
            closures have any, the list of the arrays that are only read.
        slots: where the arrays in `given` belong.
    """

    __slots__ = ("__weakref__", "_owner", "given", "rest", "slots")

    def __init__(self, owner: Any) -> None:
        self.given: list[Any] = [[]]
        self.rest: list[Any] = [None, None]
        self.slots: Sequence[_Slot] = ()
        self._owner = weakref.ref(owner, self._release)

    def run(self, jitted: Callable[..., Any], args: Any, kwargs: Any) -> list[Any] | None:
        """One call; what it writes stays here. To be called with the lock held, after `take`.

        None if a signal handler or a finalizer has looked at States since: the arrays are to be taken anew.
        """
        results: Any = None
        runs = starmap(jitted, ((self.given, self.rest),))
        try:
            if RESIDENT.now is not self:
                return None
            # From here on Python looks for no signal: it does so after calls that it makes, not after those
            # of starmap. None comes before the results, which may have taken the place of donated arrays,
            # have a place of their own.
            RESIDENT.now, RESIDENT.running = None, self
            self.rest[:2] = args, kwargs
            ((self.given[0], results),) = runs
        finally:
            self.rest[:2] = None, None
            if RESIDENT.running is self:
                RESIDENT.now, RESIDENT.running = self, None
            else:
                self.rejoin(results is not None)
        return results

    def rejoin(self, ran: bool) -> None:
        """After a call during which somebody in this thread has looked at States: a finalizer, a callback.
        What the call wrote, if it `ran`, comes last.
        """
        if ran:
            settle()
            _run_through(self.puts(self.given[0]))
        self.drop()

    def take(self, slots: Sequence[_Slot], read: Sequence[_Slot]) -> None:
        """Fetches the arrays. To be called after `settle`."""
        self.slots = slots
        self.given[0] = [s.array for s in slots]
        if read:
            self.rest[2:] = [[s.array for s in read]]

    def drop(self) -> None:
        """Holds on to no array any longer."""
        self.given[0] = []
        self.rest[:] = None, None

    def puts(self, arrays: Sequence[Any]) -> Iterator[Any]:
        """Puts arrays into the slots when it is run through: without a bytecode in between."""
        return map(object.__setattr__, self.slots, repeat("array"), arrays)

    def _release(self, _: Any) -> None:
        """The plan is gone. If a call runs, the next one will settle."""
        # As in a `with`, no interrupt comes between taking the lock and `try`. But it must not wait here:
        # the collector of garbage may have come at any moment, in a callback of the call that runs.
        for free in map(LOCK.acquire, (False,)):
            if free:
                try:
                    if RESIDENT.now is self:
                        settle()
                finally:
                    LOCK.release()


class _Resident:
    """Whose operands are up to date, where slots may not be.

    Attributes:
        now: those of the call that ran last. None while one runs, and after somebody else has looked.
        running: those of the call that runs.
    """

    __slots__ = ("now", "running")

    def __init__(self) -> None:
        self.now: Operands | None = None
        self.running: Operands | None = None


RESIDENT = _Resident()


_run_through = deque[Any](maxlen=0).extend


def settle() -> None:
    """Puts all arrays into the slots where they belong; to be called with the lock held, before anything is
    read from slots of States or written to them.

    A signal handler may come after any call below, and do the same or call a function. So what is to be put
    back is looked at again right before, and nothing is given up that somebody else has renewed.
    """
    running = RESIDENT.running
    if running is not None:
        # Its arrays may be donated any moment: JAX runs Python before it does, where it compiles.
        puts = running.puts([a if a.is_deleted() else copied(a) for a in running.given[0]])
        if RESIDENT.running is running:
            RESIDENT.running = None
            _run_through(puts)
    operands = RESIDENT.now
    if operands is not None:
        puts = operands.puts(operands.given[0])
        if RESIDENT.now is operands:
            RESIDENT.now = None
            _run_through(puts)
            if RESIDENT.now is not operands:
                operands.given[0] = []
                operands.rest[:] = None, None
