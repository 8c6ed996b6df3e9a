"""One call of a mapped function: the function is traced for one element, and its program is batched."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp

from stategrad import jax_compat as compat
from stategrad.arguments import argument_names, check_leaves, function_name, leaf_paths
from stategrad.backend.transforms import batched
from stategrad.errors import StateError, TraceError
from stategrad.ir.record import record
from stategrad.random import RandomState
from stategrad.state import State
from stategrad.structure import Structure
from stategrad.trace import Traced, trace
from stategrad.user_frame import user_line

from .axes import common_size, leaf_axes, resolved
from .plan import operands_under_trace
from .recipes import AsIs
from .staging import Staged, stage

States = tuple[State, ...]


@record
class MapOptions:
    """What is mapped: the options of `vmap`."""

    in_axes: Any
    out_axes: Any
    axis_size: int | None
    in_states: States
    out_states: States
    axis_name: Hashable = None


class Lanes:
    """A call of a mapped function, in a trace."""

    def __init__(
        self, fn: Callable[..., Any], mapping: MapOptions, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> None:
        leaves, self._tree = jax.tree.flatten((tuple(args), kwargs))
        names = argument_names(fn, args, kwargs)
        check_leaves(leaves, names, fn, "argument")
        names = [f"argument {name!r}" for name in names]
        axes = resolved(_argument_axes(fn, mapping, args, len(leaves)), leaves, names, "in_axes")
        own = {s: s.read_leaves() for s in mapping.in_states}
        arrays = [
            x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(leaves, axes, strict=True)
        ]
        lengths = [(n, len(x)) for n, x, axis in zip(names, arrays, axes, strict=True) if axis is not None]
        self._size = common_size([*lengths, *_state_lengths(own)], mapping.axis_size)
        self._fn, self._mapping, self._arrays, self._own = fn, mapping, arrays, own
        self._flags = [axis is not None for axis in axes]

    def run(self) -> Any:
        """The results for all elements; States are written in the current trace."""
        own, kept = self._own, tuple(dict.fromkeys((*self._mapping.in_states, *self._mapping.out_states)))
        lane = self._lane(own, kept)
        drawn = [s for s in lane.written if isinstance(s, RandomState) and s not in kept]
        if drawn:
            own = {**own, **{s: [jax.random.key_data(s.split_key(self._size))] for s in drawn}}
            lane = self._lane(own, kept)
        found = self._bind(lane, [x for leaves in own.values() for x in leaves])
        _write_shared(lane, found, {*kept, *drawn})
        return self._deliver(lane, found)

    def _lane(self, own: dict[State, list[Any]], kept: States) -> "Lane":
        given = [_one(x) if flag else _same(x) for x, flag in zip(self._arrays, self._flags, strict=True)]
        slices = {state: [_one(x) for x in leaves] for state, leaves in own.items()}
        with self._named_axis():
            return Lane.of(self._fn, self._tree.unflatten(given), slices, kept)

    def _named_axis(self) -> AbstractContextManager[None]:
        """Inside, collectives may name the axis, where it has a name."""
        return compat.named_axis(self._mapping.axis_name, self._size)

    def _bind(self, lane: "Lane", slices: Sequence[Any]) -> list["Found"]:
        """Runs the batched program."""
        staged = lane.staged
        operands = operands_under_trace(staged, (*slices, *self._arrays), {})
        flags = [*[True] * len(slices), *self._flags]
        flags = (*[False] * (len(operands) - len(flags)), *flags)
        with self._named_axis():
            program, differ = batched(staged.program, flags, self._size, self._mapping.axis_name)
        return [Found(x, flag) for x, flag in zip(program.bind(*operands), differ, strict=True)]

    def _deliver(self, lane: "Lane", found: Sequence["Found"]) -> Any:
        """Writes the States of which each element has its own; gives the rest to the user."""
        results, states = lane.traced.tree.unflatten(found[: lane.traced.results])
        leaves, tree = jax.tree.flatten(results, is_leaf=lambda x: isinstance(x, Found))
        what = f"out_axes of {function_name(self._fn)}"
        names = leaf_paths(tree, "result")
        axes = leaf_axes(self._mapping.out_axes, tree, what)
        placed = [
            x.placed(self._size, axis, name, what) for x, axis, name in zip(leaves, axes, names, strict=True)
        ]
        for state, structure, values in zip(lane.kept, lane.structures, states, strict=True):
            state.write_leaves([x.along(self._size) for x in values], structure)
        return tree.unflatten(placed)


def _argument_axes(
    fn: Callable[..., Any], mapping: MapOptions, args: Sequence[Any], count: int
) -> list[int | None]:
    axes = mapping.in_axes
    axes = tuple(axes) if isinstance(axes, list) else axes
    found = leaf_axes(axes, jax.tree.structure(tuple(args)), f"in_axes of {function_name(fn)}")
    return [*found, *[0] * (count - len(found))]


def _state_lengths(own: dict[State, list[Any]]) -> Iterable[tuple[str, int]]:
    for state, leaves in own.items():
        for x in leaves:
            if not x.ndim:
                raise StateError(
                    f"in_states names the State {state.name!r}, which holds a scalar{user_line()}; expected "
                    "a value with a leading axis, one slice for each element"
                )
            yield f"the State {state.name!r}", x.shape[0]


def _one(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)


def _same(x: Any) -> jax.ShapeDtypeStruct:
    aval = jax.typeof(x)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


# ------------------------------------------------------------------------------------------------ one element
@record
class Lane:
    """The function for one element. Its results are those of the function, and what `kept` hold at the end,
    in these structures.
    """

    traced: Traced
    staged: Staged
    kept: States
    structures: Sequence[Structure]

    @staticmethod
    def of(
        fn: Callable[..., Any], given: Any, slices: dict[State, list[jax.ShapeDtypeStruct]], kept: States
    ) -> "Lane":
        """Traces the function; States in `slices` hold these on entry."""
        structures: list[Structure] = []

        def lane(slices: Sequence[Any], /, *args: Any, **kwargs: Any) -> Any:
            for state, leaves in zip(own, slices, strict=True):
                state.write_leaves(leaves, state.held().structure)
            found = fn(*args, **kwargs)
            leaves, tree = jax.tree.flatten(found)
            check_leaves(leaves, leaf_paths(tree, "result"), fn, "result")
            structures[:] = [state.held().structure for state in kept]
            return found, [state.read_leaves() for state in kept]

        own = list(slices)
        args, kwargs = given
        traced = trace(_named_as(fn, lane), (list(slices.values()), *args), kwargs)
        return Lane(traced, stage(traced, AsIs().derive(traced)), kept, structures)

    @property
    def written(self) -> States:
        """The States of outside that the function writes."""
        return tuple(dict.fromkeys(leaf.state for leaf in self.staged.outputs))


def _named_as(fn: Callable[..., Any], lane: Callable[..., Any]) -> Callable[..., Any]:
    """A function of slices and the arguments of `fn`, by the names that errors show."""
    own = next(iter(inspect.signature(lane).parameters.values()))
    with contextlib.suppress(TypeError, ValueError):  # some functions in C have no signature
        vars(lane)["__signature__"] = inspect.Signature([own, *inspect.signature(fn).parameters.values()])
    functools.update_wrapper(lane, fn, assigned=(), updated=())
    lane.__name__ = function_name(fn)
    return lane


@record
class Found:
    """A result of the batched program; what `differs` between the elements carries the axis."""

    array: Any
    differs: bool

    def along(self, size: int) -> Any:
        """The array with the axis in front."""
        return self.array if self.differs else jnp.broadcast_to(self.array, (size, *self.array.shape))

    def placed(self, size: int, axis: int | None, name: str, what: str) -> Any:
        """The array with the axis where it is wanted.

        Raises:
            TraceError: there is no such axis, or it is not wanted where the elements differ.
        """
        if axis is None and self.differs:
            raise TraceError(
                f"{what} says None for {name}, which differs between the elements; name an axis for it"
            )
        array = self.array if axis is None else self.along(size)
        (place,) = resolved([axis], [array], [name], what)
        return array if place is None else jnp.moveaxis(array, 0, place)


def _write_shared(lane: Lane, found: Sequence[Found], others: set[State]) -> None:
    """Writes the States that all elements share.

    Raises:
        StateError: a value that differs between the elements is written.
    """
    results, new = (
        found[: len(found) - len(lane.staged.outputs)],
        found[len(found) - len(lane.staged.outputs) :],
    )
    shared = [(leaf, x) for leaf, x in zip(lane.staged.outputs, new, strict=True) if leaf.state not in others]
    at, retyped = lane.traced.results, []
    for each in lane.traced.retyped:
        start, at = at, at + len(each.held.types)
        if each.state not in others:
            retyped.append((each, results[start:at]))
    for state, x in [(f.state, x) for f, x in shared] + [(r.state, x) for r, xs in retyped for x in xs]:
        if x.differs:
            raise _differs(state)
    for leaf, x in shared:
        leaf.state.rewrite_leaf(leaf.index, x.array)
    for each, xs in retyped:
        each.state.write_leaves([x.array for x in xs], each.held.structure)


def _differs(state: State) -> StateError:
    return StateError(
        f"under vmap the State {state.name!r}, which all elements share, is written a value that differs "
        f"between them{user_line()}; name it in out_states to keep all values along a leading axis, or in "
        "in_states to give each element its own slice"
    )
