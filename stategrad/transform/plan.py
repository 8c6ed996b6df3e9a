"""What runs per call: gather the slots, one dispatch in C++, scatter the results.

A plan is flat and fixed: the slots of the State leaves that one program reads and writes, the arrays that the
function closes over, and how its results are put together. If the same plan runs again and nobody has looked
at the States in between, there is nothing to gather or to scatter: see `Operands`.
"""

import copy
from collections.abc import Callable, Sequence
from itertools import starmap
from typing import Any

import jax
import jax.numpy as jnp

from stategrad import jax_compat as compat
from stategrad.resident import RESIDENT, Operands, arrays_of, put, settle
from stategrad.state import Epochs, Slot
from stategrad.trace import Retyped, Traced

from .compiled import Compiled, Entry, Mismatch
from .staging import Derived, Staged, without_retyped


class Plan:
    """How a function is called with arguments of one signature.

    Args:
        compiled: its program.
        traced: the trace that this comes from; `derived` what was made of it.

    Attributes:
        keeps: what a call writes is all that it gives away, and may stay where it is for the next one.
        build: puts the results together.
    """

    def __init__(self, compiled: Compiled, traced: Traced, derived: Derived) -> None:
        self.compiled = compiled
        self.jitted: Any = compiled.jitted
        self.operands = Operands(self)
        self._leaves = Entry.of(traced).leaves
        self._structures = {leaf.state: leaf.state.structure for leaf in self._leaves}
        self._closed_over = [Slot(jnp.asarray(array)) for array in traced.captured]
        self._retyped, self._retyped_at = traced.retyped, derived.retyped_at
        self.build = derived.build
        self.keeps = compiled.given == compiled.outputs and not traced.retyped
        self._find_slots()

    def _find_slots(self) -> None:
        """They stay the same until a State gets another structure."""
        self._structure_epoch, self._epoch = Epochs.structure, -1
        slots = [leaf.slot for leaf in self._leaves]
        self.given = [slots[i] for i in self.compiled.given]
        self.read = [*(slots[i] for i in self.compiled.read), *self._closed_over]
        self.written = [slots[i] for i in self.compiled.outputs]

    def call(self, args: Any, kwargs: Any) -> Any:
        """Runs the function and commits what it writes: everything, or nothing if an exception comes out.

        Raises:
            Mismatch: the program is not for these arguments or for what States hold; nothing has happened.
        """
        try:
            return self._run(args, kwargs)
        except (RuntimeError, ValueError) as error:
            self.note_lost(error)
            raise

    def note_lost(self, error: Exception) -> None:
        """Adds to an error which States have lost their values by it: where a device fails (it has too little
        memory, say) after the buffers were donated. To be called with the lock held.
        """
        settle()
        given = zip(self.compiled.given, self.given, strict=True)
        lost = [self._leaves[i].state.name for i, slot in given if slot.array.is_deleted()]
        if lost:
            error.add_note(
                "stategrad: the device has failed after it took the buffers of the States "
                f"{', '.join(map(repr, dict.fromkeys(lost)))}: their values are gone. "
                "Assign them anew; for a call that may fail like this use donate=False."
            )

    def _run(self, args: Any, kwargs: Any) -> Any:
        jitted = self.jitted
        if self.given and compat.checks_values() and jitted is self.compiled.jitted:
            jitted = self.compiled.undonated  # JAX runs it again on the same arrays when it finds a NaN
        results: Any = None
        operands = self.operands
        if self.keeps:
            # What is asked after gathering is asked twice, in place: where a function of Python is entered, a
            # signal handler may come.
            while results is None:  # see `Operands.run`
                while RESIDENT.now is not operands:
                    turn, given, read = self.gathered()
                    if RESIDENT.now is None and turn == RESIDENT.turns and self._epoch == Epochs.sharing:
                        operands.slots, operands.given[0], operands.rest[2:] = self.given, given, read
                        RESIDENT.now = operands
                results = operands.run(jitted, args, kwargs)
            return self.build(results)
        written = None
        try:
            while results is None:
                turn, given, read = self.gathered()
                runs = starmap(jitted, (([given], [args, kwargs, *read]),))
                if RESIDENT.now is None and turn == RESIDENT.turns and self._epoch == Epochs.sharing:
                    # Who looks while JAX compiles gets copies: see `settle`.
                    operands.slots, operands.given[0], RESIDENT.running = self.given, given, operands
                    RESIDENT.turns += 1
                    ((written, results),) = runs
            rest = self._scatter(written, results)
        except BaseException:
            if written is not None:
                self._scatter(written, results)
            raise
        finally:
            RESIDENT.running = None
            operands.drop()
        return self.build(rest)

    def gathered(self) -> tuple[int, list[Any], list[list[Any]]]:
        """The arrays that the program takes, and the turn that they are of: when a signal handler has looked
        at States or called a function in the meantime, they are to be gathered anew.

        Raises:
            Mismatch: the program is not for what States hold.
        """
        settle()
        turn = RESIDENT.turns
        if self._epoch != Epochs.sharing:
            self._renew()
        return turn, arrays_of(self.given), [arrays_of(self.read)] if self.read else []

    def commit(self, written: list[Any], results: list[Any]) -> Any:
        """Commits what a run gave, through an interrupt in the middle too; gives the rest to the user."""
        try:
            rest = self._scatter(written, results)
        except BaseException:
            self._scatter(written, results)
            raise
        return self.build(rest)

    def _scatter(self, written: Any, results: Any) -> list[Any]:
        put(self.written, written)
        return without_retyped(results, self._retyped, self._retyped_at, _store)

    def example(self, args: Any, kwargs: Any) -> tuple[list[Any], list[Any]]:
        """What `jitted` would be called with now; to be called with the lock held."""
        settle()
        given, read = [s.array for s in self.given], [s.array for s in self.read]
        return [given], [args, kwargs, *([read] if read else [])]

    def running(self, jitted: Callable[..., Any]) -> "Plan":
        """A plan that runs something else instead of `jitted`: the same, compiled ahead of time."""
        twin = copy.copy(self)
        twin.jitted, twin.operands = jitted, Operands(twin)
        return twin

    def _renew(self) -> None:
        """Looks at the structures of the States again if some State has got another one; and copies the
        arrays that somebody else may hold, so that donating them hurts nobody.
        """
        epoch = Epochs.sharing  # as it is before: a signal handler may hand out an array meanwhile
        if self._structure_epoch != Epochs.structure:
            self._look_at_structures()
        for slot in self.given:
            while not slot.exclusive:
                before = slot.array
                copied = compat.copied(before)
                if slot.array is before:  # else a signal handler has called a function meanwhile
                    slot.array, slot.exclusive = copied, True
        self._epoch = epoch

    def _look_at_structures(self) -> None:
        for state, structure in self._structures.items():
            if state.structure != structure:
                changed = f"the State {state.name!r} changed from {structure} to {state.structure}"
                raise Mismatch(f"{changed} since {self.compiled.program} was traced", changed)
        self._find_slots()


def _store(retyped: Retyped, leaves: list[Any]) -> None:
    retyped.state.store(retyped.held.structure, leaves, exclusive=True)


def _write(retyped: Retyped, leaves: list[Any]) -> None:
    retyped.state.write_leaves(leaves, retyped.held.structure)


def bind_under_trace(staged: Staged, args: Any, kwargs: Any) -> Any:
    """Runs a program under whatever JAX trace is current: States are read and written through their
    primitives.
    """
    return commit_under_trace(staged, staged.program.bind(*operands_under_trace(staged, args, kwargs)))


def operands_under_trace(staged: Staged, args: Any, kwargs: Any) -> list[Any]:
    """What a program takes: State leaves as they are now in the current trace, and the argument leaves."""
    states = {id(leaf.state): leaf.state for leaf in staged.inputs}
    values = {key: state.read_leaves() for key, state in states.items()}
    inputs = [values[id(leaf.state)][leaf.index] for leaf in staged.inputs]
    return [*inputs, *staged.captured, *jax.tree.leaves((args, kwargs))]


def commit_under_trace(staged: Staged, found: Sequence[Any]) -> Any:
    """Writes what a program gave for States in the current trace; gives the rest to the user."""
    results, new = staged.split(found)
    for leaf, value in zip(staged.outputs, new, strict=True):
        leaf.state.rewrite_leaf(leaf.index, value)
    return staged.deliver(results, _write)
