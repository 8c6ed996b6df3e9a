"""What runs per call: gather the slots, one dispatch in C++, scatter the results.

A plan holds the slots of every State leaf that the programs of one function touch. It is flat and fixed; only another
pytree structure of some State, or a program that touches more, makes a new one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import starmap
from typing import Any

import jax
import jax.numpy as jnp

from stategrad.errors import StateError
from stategrad.state import Epochs, Slot
from stategrad.trace import Leaf, Retyped

from .staging import Staged


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Output:
    """What a compiled function returns inside: the user's result, the new values of the plan's written slots, and the
    States that end with another type (which ones is static).
    """

    result: Any
    written: list[Any]
    retyped_leaves: list[Any]
    retyped: tuple[Retyped, ...]

    def tree_flatten(self) -> tuple[tuple[Any, list[Any], list[Any]], tuple[Retyped, ...]]:
        return (self.result, self.written, self.retyped_leaves), self.retyped

    @classmethod
    def tree_unflatten(cls, retyped: tuple[Retyped, ...], children: Any) -> "Output":
        return cls(*children, retyped)


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
    """

    def __init__(
        self, read: Iterable[Leaf], written: Iterable[Leaf], stage: Callable[[Any, Any], Staged], donate: bool
    ) -> None:
        self.written_leaves = tuple(dict.fromkeys(written))
        self.read_leaves = tuple(leaf for leaf in dict.fromkeys(read) if leaf not in set(self.written_leaves))
        self.read = [leaf.slot for leaf in self.read_leaves]
        self.written: list[Slot] = [leaf.slot for leaf in self.written_leaves]
        self.donate = donate
        self.structure_epoch = Epochs.structure
        self.sharing_epoch = -1
        self._stage = stage
        self.jitted = jax.jit(self._run, donate_argnums=(0,) if donate else ())

    def covers(self, staged: Staged) -> bool:
        """Whether the plan holds all that a program touches, and donates nothing that it must not."""
        written = set(self.written_leaves)
        return (
            written.issuperset(staged.outputs)
            and written.union(self.read_leaves).issuperset(staged.inputs)
            and not (self.donate and staged.program.effects)
        )

    def widened(self, staged: Staged) -> "Plan":
        """A plan that covers one more program."""
        return Plan(
            (*self.read_leaves, *staged.inputs),
            (*self.written_leaves, *staged.outputs),
            self._stage,
            self.donate and not staged.program.effects,
        )

    @property
    def current(self) -> bool:
        """Whether no State has got another structure since the plan was made."""
        return self.structure_epoch == Epochs.structure

    def call(self, args: Any, kwargs: Any) -> Any:
        """Runs the function and commits what it writes: everything, or nothing if an exception comes out.

        Raises:
            Uncovered: the program touches more than the plan holds; nothing has happened.
        """
        if self.sharing_epoch != Epochs.sharing and self.donate:
            self._own()
        operands = ([s.array for s in self.written], [s.array for s in self.read], args, kwargs)
        box: list[Output] = []
        try:
            # The result must be stored without a bytecode in between: an interrupt there would lose donated arrays.
            box.extend(starmap(self.jitted, (operands,)))
            output = box[0]
            for slot, array in zip(self.written, output.written, strict=True):
                slot.array = array
            if output.retyped:
                _retype(output)
        except BaseException:
            if box:
                _finish(self.written, box[0])
            raise
        return output.result

    def _own(self) -> None:
        """Copies the arrays that somebody else may hold, so that donating them hurts nobody."""
        for slot in self.written:
            if not slot.exclusive:
                slot.array = jnp.array(slot.array, copy=True)
                slot.exclusive = True
        self.sharing_epoch = Epochs.sharing

    def _run(self, written: list[Any], read: list[Any], args: Any, kwargs: Any) -> Output:
        staged = self._stage(args, kwargs)
        if not self.covers(staged):
            raise Uncovered(staged)
        values = dict(zip((*self.written_leaves, *self.read_leaves), (*written, *read), strict=True))
        operands = [values[leaf] for leaf in staged.inputs]
        leaves = jax.tree.leaves((args, kwargs))
        results = staged.program.bind(*operands, *staged.captured, *leaves)
        result, retyped, new = staged.split(results)
        values.update(zip(staged.outputs, new, strict=True))
        return Output(result, [values[leaf] for leaf in self.written_leaves], retyped, staged.retyped)


def _finish(slots: Sequence[Slot], output: Output) -> None:
    for slot, array in zip(slots, output.written, strict=True):
        slot.array = array
    _retype(output)


def _retype(output: Output) -> None:
    arrays = iter(output.retyped_leaves)
    for retyped in output.retyped:
        new = [next(arrays) for _ in retyped.held.types]
        retyped.state.store(retyped.held.structure, new, exclusive=True)


def bind_under_trace(staged: Staged, args: Any, kwargs: Any) -> Any:
    """Runs a program under whatever JAX trace is current: States are read and written through their primitives."""
    states = {id(leaf.state): leaf.state for leaf in staged.inputs}
    values = {key: state.read_leaves() for key, state in states.items()}
    operands = [values[id(leaf.state)][leaf.index] for leaf in staged.inputs]
    results = staged.program.bind(*operands, *staged.captured, *jax.tree.leaves((args, kwargs)))
    result, retyped, new = staged.split(results)
    for leaf, value in zip(staged.outputs, new, strict=True):
        leaf.state.rewrite_leaf(leaf.index, value)
    arrays = iter(retyped)
    for r in staged.retyped:
        r.state.write_leaves([next(arrays) for _ in r.held.types], r.held.structure)
    return result


def refuse_states(args: Any, kwargs: Any, error: Exception) -> None:
    """If a State hides among the arguments, says so instead of JAX's complaint.

    Raises:
        StateError: there is one.
    """
    for leaf in jax.tree.leaves((args, kwargs)):
        if hasattr(leaf, "stored_leaf"):
            raise StateError(
                f"the State {leaf.name!r} is passed as an argument; read it inside the function through its `.value` "
                "(a function may close over States), or pass its `.value`"
            ) from error
