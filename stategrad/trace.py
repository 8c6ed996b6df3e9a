"""From a Python function and its arguments to an effectful IR function, with the States that its cells stand
for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from stategrad.ir import Cell, Function, IRTypeError, Names, Type
from stategrad.passes import with_local_cells

from . import jax_compat as compat
from .arguments import (
    argument_names,
    check_leaves,
    definition,
    function_name,
    identifier,
    leaf_paths,
    shown,
)
from .frame import Frame, Held, tracing
from .importing import import_jaxpr
from .state import State
from .state_primitives import CellId


class _Stale(Exception):
    """A body that JAX had cached reads a State as it was before: everything must be traced anew."""


@dataclass(frozen=True)
class Leaf:
    """One array leaf of a State."""

    state: State
    index: int

    @property
    def slot(self) -> Any:
        return self.state.slots[self.index]


@dataclass(frozen=True)
class Retyped:
    """A State that ends with another structure or type; its new leaves are results of the function."""

    state: State
    held: Held


@dataclass(frozen=True)
class Traced:
    """A traced function.

    Attributes:
        function: effectful; its parameters are `captured` and then the array leaves of the arguments, its
            results the array leaves of what the function returned, and then the leaves of `retyped`.
        leaves: the cells that have a value on entry, and the State leaf that each stands for.
        captured: tracers of an enclosing JAX trace that the function closes over.
        tree: the pytree structure of what the function returned.
        results: how many leaves that has.
        retyped: States that end with another structure or type.
        arguments: for each argument leaf its path as text, such as `x` or `params['w']`.
        argument_trees: the pytree structure of each positional argument.
    """

    function: Function
    leaves: dict[Cell, Leaf]
    captured: tuple[Any, ...]
    tree: Any
    results: int
    retyped: tuple[Retyped, ...]
    arguments: tuple[str, ...]
    argument_trees: tuple[Any, ...]

    def cells_of(self, state: State) -> list[Cell | None]:
        """For each leaf of a State the cell that stands for it, None where the function does not touch it."""
        found: list[Cell | None] = [None] * len(state.held().types)
        for cell, leaf in self.leaves.items():
            if leaf.state is state:
                found[leaf.index] = cell
        return found

    def signature(self) -> dict[str, str]:
        """The types of arguments and States, by their names."""
        params = self.function.params[len(self.captured) :]
        arguments = {name: str(v.type) for name, v in zip(self.arguments, params, strict=True)}
        return arguments | {f"the State {c.name!r}": str(c.type) for c in self.leaves}

    def reads_entry(self, cell: Cell) -> bool:
        """Whether the value that the cell has on entry may matter: whether its first use is something else
        than a write.
        """
        first = next((op for op in self.function.body.operations if cell in op.effects), None)
        return first is not None and first.name != "write"


def trace(
    fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], *, fresh: bool = False
) -> Traced:
    """Traces `fn(*args, **kwargs)`; no State changes.

    Args:
        fresh: trace the bodies of loops and nested jits again too, rather than take them from JAX's caches.

    Raises:
        TraceError: an argument or result is no array; a State is passed or returned.
        StateError: a State is used where or how that is not possible.
    """
    leaves, tree = jax.tree.flatten((tuple(args), kwargs))
    names = argument_names(fn, args, kwargs)
    check_leaves(leaves, names, fn, "argument")
    try:
        return _trace(fn, leaves, tree, names, fresh)
    except _Stale:
        return _trace(fn, leaves, tree, names, True)


def _trace(fn: Callable[..., Any], leaves: list[Any], tree: Any, names: list[str], fresh: bool) -> Traced:
    found: list[Any] = []
    with tracing() as frame:
        if fresh:
            frame.stack.enter_context(compat.fresh_context())

        def flat(*leaves: Any) -> list[Any]:  # a new function each time: JAX caches by identity
            frame.start()
            args, kwargs = shown(tree.unflatten(leaves))
            results, out_tree = jax.tree.flatten(fn(*args, **kwargs))
            check_leaves(results, leaf_paths(out_tree, "result"), fn, "result")
            retyped = _retyped(frame)
            found.extend((out_tree, len(results), retyped))
            return [*results, *(x for r in retyped for x in r.state.read_leaves())]

        compat.present_as(flat, fn, names)
        closed = jax.make_jaxpr(flat)(*leaves)
        cells = _Cells(frame)
        try:
            imported = import_jaxpr(closed, function_name(fn), cells.find, Names())
        except IRTypeError:
            if fresh:
                raise
            raise _Stale from None
    out_tree, results, retyped = found
    params = imported.function.params[len(imported.captured) :]
    for param, name in zip(params, names, strict=True):
        param.name = identifier(name)
    function = with_local_cells(imported.function, cells.local)
    function = Function(function.name, function.body, function.attributes, definition(fn))
    trees = tuple(tree.children()[0].children())
    return Traced(
        function, cells.leaves, tuple(imported.captured), out_tree, results, retyped, tuple(names), trees
    )


def _retyped(frame: Frame) -> tuple[Retyped, ...]:
    """The States of outside that the function leaves with another structure or type."""
    return tuple(Retyped(frame.seen[c], h) for c, h in frame.retyped.items() if c not in frame.created)


class _Cells:
    """Gives each leaf and version of a State that the traced program touches its cell."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.names = Names()
        self.leaves: dict[Cell, Leaf] = {}
        self.local: list[Cell] = []
        self._found: dict[tuple[CellId, tuple[int, int]], Cell] = {}

    def find(self, params: dict[str, Any], type: Type) -> Cell:
        cell_id, leaf = params["cell"], params["leaf"]
        entry = self.frame.entry_version(cell_id) == leaf[0]
        if entry and "structure" in params:
            self._check_fresh(cell_id, params["structure"])
        found = self._found.get((cell_id, leaf))
        if found is None:
            found = self._found[cell_id, leaf] = self._enter(cell_id, leaf, type, entry)
        if found.type != type:
            raise _Stale
        return found

    def _check_fresh(self, cell_id: CellId, structure: Any) -> None:
        state = cell_id.ref()
        if state is None or _entry_held(self.frame, state).structure != structure:
            raise _Stale

    def _enter(self, cell_id: CellId, leaf: tuple[int, int], type: Type, entry: bool) -> Cell:
        if not entry:
            cell = Cell(self.names.fresh(identifier(cell_id.name)), type)
            self.local.append(cell)
            return cell
        state = cell_id.ref()
        if state is None:
            raise _Stale
        held = _entry_held(self.frame, state)
        if leaf[1] >= len(held.types):
            raise _Stale
        path = held.structure.leaf_names()[leaf[1]]
        cell = Cell(self.names.fresh(identifier(state.name + path)), compat.type_of_aval(held.types[leaf[1]]))
        self.leaves[cell] = Leaf(state, leaf[1])
        return cell


def _entry_held(frame: Frame, state: State) -> Held:
    found = frame.parent.held(state) if frame.parent is not None else None
    return found or Held(state.structure, tuple(compat.strong(jax.typeof(s.array)) for s in state.slots))
