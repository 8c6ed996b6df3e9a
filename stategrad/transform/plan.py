"""What runs per call: gather the slots, one dispatch in C++, scatter the results.

A plan holds the slots of every State leaf that the programs of one function touch. It is flat and fixed; only
another pytree structure of some State, or a program that touches more, makes a new one.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from typing import Any

import jax
import jax.numpy as jnp

from stategrad.state import Epochs, Slot
from stategrad.trace import Leaf, Retyped

from .staging import Staged


class Uncovered(Exception):
    """A program touches State leaves that the plan does not hold; `staged` is that program."""

    def __init__(self, staged: Staged) -> None:
        super().__init__()
        self.staged = staged


class Plan:
    """The slots of a function's States, and the jitted function over them.

    Args:
        read: leaves that are only read.
        written: leaves that some program writes; every program returns a value for each of them.
        stage: gives the program for the arguments of a call.
        donate: whether XLA may reuse the buffers of `written`.
        name: what XLA's profiles and dumps call the function.
    """

    def __init__(
        self,
        read: Iterable[Leaf],
        written: Iterable[Leaf],
        stage: Callable[[Any, Any], Staged],
        donate: bool,
        name: str,
    ) -> None:
        self.written_leaves = tuple(dict.fromkeys(written))
        self.read_leaves = tuple(leaf for leaf in dict.fromkeys(read) if leaf not in set(self.written_leaves))
        self.read = [leaf.slot for leaf in self.read_leaves]
        self.written: list[Slot] = [leaf.slot for leaf in self.written_leaves]
        self.donate = donate
        self.structure_epoch = Epochs.structure
        self.sharing_epoch = -1
        self._stage = stage
        self._programs: list[Staged] = []
        self.name = name
        self.jitted = jax.jit(_named(self._run, name), donate_argnums=(0,) if donate else ())

    def covers(self, staged: Staged) -> bool:
        """Whether the plan holds all that a program touches, and donates nothing that it must not."""
        written = set(self.written_leaves)
        return (
            written.issuperset(staged.outputs)
            and written.union(self.read_leaves).issuperset(staged.inputs)
            and not (self.donate and not staged.program.donatable)
        )

    def widened(self, staged: Staged) -> "Plan":
        """A plan that covers one more program."""
        return Plan(
            (*self.read_leaves, *staged.inputs),
            (*self.written_leaves, *staged.outputs),
            self._stage,
            self.donate and staged.program.donatable,
            self.name,
        )

    @property
    def current(self) -> bool:
        """Whether no State has got another structure since the plan was made."""
        return self.structure_epoch == Epochs.structure

    def call(self, args: Any, kwargs: Any, run: Callable[..., Any] | None = None) -> Any:
        """Runs the function and commits what it writes: everything, or nothing if an exception comes out.

        Args:
            run: what to run instead of `jitted`: the same, compiled ahead of time.

        Raises:
            Uncovered: the program touches more than the plan holds; nothing has happened.
        """
        if self.sharing_epoch != Epochs.sharing and self.donate:
            self._own()
        operands = ([s.array for s in self.written], [s.array for s in self.read], args, kwargs)
        box: list[tuple[list[Any], dict[int, list[Any]]]] = []
        try:
            # The arrays must be in the box before any bytecode runs: an interrupt in between would lose
            # donated ones.
            box.extend(starmap(run or self.jitted, (operands,)))
            written, results = box[0]
            for slot, array in zip(self.written, written, strict=True):
                slot.array = array
            ((number, leaves),) = results.items()
            return self._programs[number].deliver(leaves, _store)
        except BaseException:
            if box:
                self._finish(*box[0])
            raise

    def _own(self) -> None:
        """Copies the arrays that somebody else may hold, so that donating them hurts nobody."""
        for slot in self.written:
            if not slot.exclusive:
                slot.array = jnp.array(slot.array, copy=True)
                slot.exclusive = True
        self.sharing_epoch = Epochs.sharing

    def _finish(self, written: list[Any], results: dict[int, list[Any]]) -> None:
        """Commits everything, after an interrupt in the middle of that."""
        for slot, array in zip(self.written, written, strict=True):
            slot.array = array
        for number, leaves in results.items():
            self._programs[number].deliver(leaves, _store)

    def _run(
        self, written: list[Any], read: list[Any], args: Any, kwargs: Any
    ) -> tuple[list[Any], dict[int, list[Any]]]:
        """What jax.jit traces: the new values of the written slots, and the results under the program's
        number.

        All containers are built in: JAX makes them in C++, without a bytecode in which an interrupt could
        come.
        """
        staged = self._stage(args, kwargs)
        if not self.covers(staged):
            raise Uncovered(staged)
        self._programs.append(staged)
        values = dict(zip((*self.written_leaves, *self.read_leaves), (*written, *read), strict=True))
        operands = [values[leaf] for leaf in staged.inputs]
        leaves = jax.tree.leaves((args, kwargs))
        results, new = staged.split(staged.program.bind(*operands, *staged.captured, *leaves))
        values.update(zip(staged.outputs, new, strict=True))
        return [values[leaf] for leaf in self.written_leaves], {len(self._programs) - 1: results}


def _named(run: Callable[..., Any], name: str) -> Callable[..., Any]:
    def named(written: list[Any], read: list[Any], args: Any, kwargs: Any) -> Any:
        return run(written, read, args, kwargs)

    named.__name__ = named.__qualname__ = name
    return named


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
