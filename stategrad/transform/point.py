"""A function at a point: traced there, with what it is differentiated by and what of it, and run there."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import identifier, leaf_paths
from stategrad.backend import Program
from stategrad.ir import Cell, Names, Type, to_text
from stategrad.ir.record import record
from stategrad.nonfinite import Trip
from stategrad.resident import settle
from stategrad.state import LOCK, Epochs, State, refuse_in_callbacks
from stategrad.structure import Structure
from stategrad.trace import Leaf, Traced, trace

from .closed_over import with_arrays_as_parameters
from .eager import commit_all
from .parts import Inputs, Outputs, Part, Place, StateParts
from .plan import commit_under_trace, operands_under_trace
from .pure import Pure
from .selection import Request, Selection
from .staging import Staged, module_of
from .trips import refuse_under_trace, run_watched
from .wanted import WantedStates, is_sequence, resolve_argnums

_KEPT = 256
_pure: dict[Any, Pure] = {}


@record
class Ran:
    """What a run gave: the leaves of what the function returned, the derivatives after them, and everything
    that can be a residual.
    """

    results: list[Any]
    derivatives: list[Any]
    values: list[Any]


@record
class Watch:
    """That nothing may be committed or given that is not finite.

    Attributes:
        extra: what a person calls the tangents that the program takes.
        derivatives: what a person calls the derivatives that it gives; if none, what it gives are residuals.
        reverse: whether they are derivatives in reverse.
    """

    extra: tuple[str, ...] = ()
    derivatives: tuple[str, ...] = ()
    reverse: bool = False


@record
class Point:
    """A traced function with its arguments.

    Attributes:
        traced: with a cell for every leaf of the States whose final values are asked for.
        pure: its effect-free twin; equal functions share one, and so all programs made from it.
        arguments: the argument leaves.
    """

    traced: Traced
    request: Request
    selection: Selection
    pure: Pure
    arguments: tuple[Any, ...]
    final: WantedStates | None

    @staticmethod
    def at(
        fn: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
        request: Request,
        final: WantedStates | None = None,
    ) -> "Point":
        """Traces a function at these arguments, static ones hidden; no State changes.

        Raises:
            GradientError: what is asked for has no derivative, or the function does not depend on it.
            TraceError, StateError: as for `trace`.
        """
        refuse_in_callbacks()
        with LOCK:
            traced = with_arrays_as_parameters(trace(fn, args, kwargs))
            selection = request.select(traced)
            traced, keep = _with_final(traced, final.states if final else ())
            pure = _find(traced, keep)
        return Point(traced, request, selection, pure, tuple(jax.tree.leaves((args, kwargs))), final)

    # ------------------------------------------------------------------------------------------------ running
    def run(self, program: Program, extra: Sequence[Any] = (), watch: "Watch | None" = None) -> Ran:
        """Runs a program made from `pure`, with tangents in `extra`, and commits what it writes.

        Raises:
            NonFiniteError: with `watch`, something is not finite; nothing is committed.
            TraceError: with `watch`, a function is being traced.
        """
        if watch is not None:
            refuse_under_trace(self.name)
        staged = self._staged(program)
        leaves = [*self.arguments, *extra]
        if compat.is_eager():
            operands = [*map(_shared, staged.inputs), *staged.captured, *leaves]
            found = program.bind(*operands) if watch is None else self._watched(program, operands, watch)
            delivered = commit_all(staged, *_split(staged, found))
        else:
            operands = operands_under_trace(staged, leaves, {})
            found = program.bind(*operands)
            delivered = commit_under_trace(staged, found)
        count = self.traced.results
        return Ran(delivered[:count], delivered[count:], [*operands, *found])

    def _watched(self, program: Program, operands: Sequence[Any], watch: "Watch") -> list[Any]:
        """Runs a program; what is not named among its results are residuals, which may be anything."""
        start, end = self.pure.own, len(program.results) - sum(self.pure.changed)
        residuals = () if watch.derivatives else tuple(range(start, end))
        found, finite = run_watched(program, operands, residuals)
        if finite:
            return found
        names = [*self._result_names[0], *watch.derivatives, *self._result_names[1]]
        seen = [x for i, x in enumerate(found) if i not in residuals]
        trip = Trip.of(self.name, names, seen, reverse=watch.reverse)
        raise trip.explained(program.function, operands, self.operand_names + watch.extra)

    @property
    def operand_names(self) -> tuple[str, ...]:
        """What a person calls the operands of `pure`."""
        cells = list(self.traced.leaves)
        return (
            *(f"the State {cells[n].name!r}" for n in self.pure.inputs),
            *("a literal or an array that the function closes over" for _ in self.traced.captured),
            *(f"argument {name!r}" for name in self.traced.arguments),
        )

    @property
    def _result_names(self) -> tuple[list[str], list[str]]:
        """What a person calls the results of `pure`: those before the derivatives, and those after them."""
        cells, traced = list(self.traced.leaves), self.traced
        retyped = (
            f"the new value of the State {r.state.name!r}" for r in traced.retyped for _ in r.held.types
        )
        changed = (n for n, flag in zip(self.pure.outputs, self.pure.changed, strict=True) if flag)
        written = [f"the new value of the State {cells[n].name!r}" for n in changed]
        return [*leaf_paths(traced.tree, "the result"), *retyped], written

    def _staged(self, program: Program) -> Staged:
        leaves, pure, traced = self._leaves, self.pure, self.traced
        changed = [n for n, flag in zip(pure.outputs, pure.changed, strict=True) if flag]
        return Staged(
            program,
            tuple(leaves[n] for n in pure.inputs),
            tuple(leaves[n] for n in changed),
            traced.captured,
            traced.retyped,
            traced.results,
            list,
            module_of(traced),
        )

    # ---------------------------------------------------------------------------------------------- the sides
    @cached_property
    def inputs(self) -> Inputs:
        """What the request differentiates by."""
        request, count = self.request, len(self.traced.argument_trees)
        states, args = request.states, None
        if request.argnums is not None:
            args = tuple(self.argument(n) for n in resolve_argnums(request.argnums, count, self.name))
        parts = None if states is None else StateParts.of(states, self.entry)
        return Inputs(args, not is_sequence(request.argnums), parts, request.unit_aware)

    @cached_property
    def outputs(self) -> Outputs:
        """What the request differentiates, and the final States."""
        return Outputs(self.value, None if self.final is None else StateParts.of(self.final, self.end))

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.traced.function.name

    def argument(self, number: int) -> Part:
        """One positional argument."""
        trees = self.traced.argument_trees
        start = sum(tree.num_leaves for tree in trees[:number])
        first = len(self.pure.inputs) + len(self.traced.captured)
        places = tuple(
            Place(f"argument {name!r}", self.pure.function.params[first + i].type, first + i)
            for i, name in enumerate(self.traced.arguments[: start + trees[number].num_leaves])
            if i >= start
        )
        return Part(f"argument {number} of {self.name}", trees[number], places)

    @cached_property
    def value(self) -> Part:
        """What the function returns, without aux."""
        tree = self.selection.full_value_tree
        paths, _ = jax.tree_util.tree_flatten_with_path(tree.unflatten(range(tree.num_leaves)))
        places = tuple(
            Place(f"the result{jax.tree_util.keystr(path)} of {self.name}", _type(self.pure, i), i)
            for path, i in paths
        )
        return Part(f"the result of {self.name}", tree, places)

    def entry(self, state: State) -> Part:
        """What a State holds on entry."""
        held = state.held()
        numbers = [self._inputs.get(Leaf(state, i)) for i in range(len(held.types))]
        return _state_part(state, held.structure, [compat.type_of_aval(t) for t in held.types], numbers)

    def end(self, state: State) -> Part:
        """What a State holds at the end."""
        first = self.traced.results
        for retyped in self.traced.retyped:
            count = len(retyped.held.types)
            if retyped.state is state:
                numbers = list(range(first, first + count))
                return _state_part(
                    state, retyped.held.structure, [_type(self.pure, n) for n in numbers], numbers
                )
            first += count
        held = state.held()
        numbers = [self._outputs[Leaf(state, i)] for i in range(len(held.types))]
        return _state_part(state, held.structure, [_type(self.pure, n) for n in numbers], numbers)

    def split(self, ran: Ran) -> tuple[Any, tuple[Any, ...]]:
        """The value, and aux in a tuple of its own if there is any."""
        return self.selection.split_value(ran.results)

    # ------------------------------------------------------------------------------------------------ numbers
    @cached_property
    def _leaves(self) -> tuple[Leaf, ...]:
        return tuple(self.traced.leaves.values())

    @cached_property
    def _inputs(self) -> dict[Leaf, int]:
        return {self._leaves[n]: i for i, n in enumerate(self.pure.inputs)}

    @cached_property
    def _outputs(self) -> dict[Leaf, int]:
        return {self._leaves[n]: self.pure.own + i for i, n in enumerate(self.pure.outputs)}


def _type(pure: Pure, number: int) -> Type:
    return pure.function.results[number].type


def _state_part(
    state: State, structure: Structure, types: Sequence[Type], numbers: Sequence[int | None]
) -> Part:
    tree = jax.tree.structure(structure.build(range(len(types)), statics=False))
    places = tuple(
        Place(f"the State {state.name + path!r}", type, number)
        for path, type, number in zip(structure.leaf_names(), types, numbers, strict=True)
    )
    return Part(f"the State {state.name!r}", tree, places)


def _with_final(traced: Traced, states: Sequence[State]) -> tuple[Traced, tuple[Cell, ...]]:
    """The same with a cell for every leaf of the States whose type stays; and all these cells."""
    retyped = {r.state for r in traced.retyped}
    leaves, names = dict(traced.leaves), Names(c.name for c in traced.leaves)
    cells = {leaf: cell for cell, leaf in leaves.items()}
    keep: list[Cell] = []
    for state in dict.fromkeys(s for s in states if s not in retyped):
        held = state.held()
        for i, (type, path) in enumerate(zip(held.types, held.structure.leaf_names(), strict=True)):
            cell = cells.get(Leaf(state, i))
            if cell is None:
                cell = Cell(names.fresh(identifier(state.name + path)), compat.type_of_aval(type))
                leaves[cell] = Leaf(state, i)
            keep.append(cell)
    return dataclasses.replace(traced, leaves=leaves), tuple(keep)


def _find(traced: Traced, keep: Sequence[Cell]) -> Pure:
    """The twin of a function; the one that there is, if an equal function has been traced before."""
    text = to_text(module_of(traced), locations=False)
    key = text, tuple(c.name for c in keep), compat.config_key()
    pure = _pure.pop(key, None) or Pure.of(traced, keep)
    _pure[key] = pure  # the most recently used one last
    if len(_pure) > _KEPT:
        del _pure[next(iter(_pure))]
    return pure


def _shared(leaf: Leaf) -> Any:
    """A State's array, which a pullback may hold on to: from now on the State does not own it alone."""
    slot = leaf.slot
    if slot.exclusive:
        settle()
        slot.exclusive = False
        Epochs.sharing += 1
    return slot.array


def _split(staged: Staged, found: Sequence[Any]) -> tuple[list[Any], Sequence[Leaf], list[Any]]:
    results, new = staged.split(found)
    return results, staged.outputs, new
