"""Arrays of States that stay with the compiled function that wrote them until somebody else wants them.

A training loop calls one function again and again. What it wrote is what it takes next: the list that XLA
gave is handed back as it is, and goes into the slots of the States only when another call or a reader needs
it.
"""

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat, starmap
from operator import attrgetter
from typing import Any, Protocol

from .jax_compat import copied

LOCK = threading.RLock()
"""Held from gather to scatter of a compiled call, and while an array that a State alone owns is handed out.
"""


class Epochs:
    """Counters that let a compiled call see with one comparison that nothing it relies on has changed."""

    structure = 0
    """Goes up when some State gets another pytree structure: plans look whether it was one of theirs."""
    sharing = 0
    """Goes up when some State's array gets a second owner, or `structure` does: plans look at this one."""
    attributes = 0
    """Goes up when an attribute of some Module is set or deleted, or the structure of a State without arrays
    changes: guards look at this.
    """


class _Slot(Protocol):
    array: Any
    exclusive: bool


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
        """One call; what it writes stays here. To be called with the lock held, when `now` is this.

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
            put(self.slots, self.given[0])
        self.drop()

    def drop(self) -> None:
        """Holds on to no array any longer."""
        self.given[0] = []
        self.rest[:] = None, None

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
        turns: goes up when arrays come into slots: what was taken from them before is out of date.
    """

    __slots__ = ("now", "running", "turns")

    def __init__(self) -> None:
        self.now: Operands | None = None
        self.running: Operands | None = None
        self.turns = 0


RESIDENT = _Resident()


_run_through = deque[Any](maxlen=0).extend
_array_of, _is_exclusive = attrgetter("array"), attrgetter("exclusive")


def is_settled() -> bool:
    """Whether all arrays are in the slots where they belong."""
    return RESIDENT.now is None and RESIDENT.running is None


# What follows runs in C from end to end: no signal handler comes in between.
def arrays_of(slots: Sequence[_Slot]) -> list[Any]:
    """The arrays of slots, all of one moment."""
    return list(map(_array_of, slots))


def any_exclusive(slots: Sequence[_Slot]) -> bool:
    """Whether of some slots nobody but the State holds the array."""
    return any(map(_is_exclusive, slots))


def share(slots: Sequence[_Slot]) -> None:
    """Notes that somebody else may hold the arrays of slots."""
    _run_through(map(object.__setattr__, slots, repeat("exclusive"), repeat(False)))


def _puts(slots: Sequence[_Slot], arrays: Sequence[Any]) -> Iterator[Any]:
    """Puts arrays into slots when it is run through: without a bytecode in between."""
    return map(object.__setattr__, slots, repeat("array"), arrays)


def put(slots: Sequence[_Slot], arrays: Sequence[Any], exclusive: bool | None = None) -> None:
    """Puts arrays into slots, and notes, unless that is None, whether nobody else holds them."""
    puts = _puts(slots, arrays)
    flags = map(object.__setattr__, slots, repeat("exclusive"), repeat(exclusive))
    _run_through(puts if exclusive is None else chain(puts, flags))


def settle() -> None:
    """Puts all arrays into the slots where they belong; to be called with the lock held, before anything is
    read from slots of States or written to them.

    A signal handler may come after any call below, and do the same or call a function. So what is to be put
    back is looked at again right before, and nothing is given up that somebody else has renewed.
    """
    while RESIDENT.now is not None or RESIDENT.running is not None:
        running, operands = RESIDENT.running, RESIDENT.now
        if running is not None:
            # Its arrays may be donated any moment: JAX runs Python before it does, where it compiles.
            puts = _puts(running.slots, [a if a.is_deleted() else copied(a) for a in running.given[0]])
            if RESIDENT.running is running:
                RESIDENT.running = None
                _run_through(puts)
        elif operands is not None:
            arrays = operands.given[0]
            puts = _puts(operands.slots, arrays)
            if RESIDENT.now is operands and operands.given[0] is arrays:
                RESIDENT.now = None
                RESIDENT.turns += 1
                _run_through(puts)
                if RESIDENT.now is not operands:
                    operands.given[0] = []
                    operands.rest[:] = None, None
