"""What a derivative is taken of and by, and how its parts are put together for the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from stategrad import jax_compat as compat
from stategrad.arguments import Hidden
from stategrad.errors import GradientError
from stategrad.ir import Cell, Type
from stategrad.state import State
from stategrad.trace import Traced

from .wanted import WantedStates, is_sequence, resolve_argnums

LEAF = jax.tree.structure(0)


@dataclass(frozen=True)
class Request:
    """What the user asked for: by which States and arguments, and what to return beside the derivatives."""

    states: WantedStates | None
    argnums: Any
    has_aux: bool = False
    return_value: bool = False
    check_states: bool = True

    @staticmethod
    def of(grad_states: Any, argnums: Any, has_aux: Any, return_value: bool, check_states: bool) -> "Request":
        """Reads the parameters that all transforms share; without States and `argnums`, argument 0 is meant.

        Raises:
            GradientError: something in `grad_states` is no State.
        """
        states = WantedStates.of(grad_states)
        argnums = 0 if argnums is None and states is None else argnums
        argnums = tuple(argnums) if is_sequence(argnums) else argnums
        return Request(states, argnums, bool(has_aux), return_value, check_states)

    def outcome(self, derivatives: Any, value: Any, aux: Sequence[Any]) -> Any:
        """What the user gets: `(derivatives, value, aux)` without what was not asked for."""
        extra = (*([value] if self.return_value else []), *aux)
        return (derivatives, *extra) if extra else derivatives

    def select(self, traced: Traced) -> "Selection":
        """What was asked for in terms of a traced function.

        Raises:
            GradientError: an argument or State does not exist, has no derivative, or has no influence.
        """
        return Selection(self, traced, *_arguments(self, traced), _cells(self, traced))


@dataclass(frozen=True)
class Selection:
    """A request in terms of a traced function.

    Attributes:
        args: the parameters to differentiate by, one for each argument leaf.
        arg_trees: the pytree of each argument asked for.
        cells: for each State asked for the cells of its leaves; None where the function does not touch a
            leaf.
    """

    request: Request
    traced: Traced
    args: tuple[int, ...]
    arg_trees: tuple[Any, ...]
    cells: tuple[tuple[Cell | None, ...], ...]

    @cached_property
    def wanted(self) -> tuple[Cell, ...]:
        """The cells to differentiate by, each once."""
        return tuple(dict.fromkeys(c for cells in self.cells for c in cells if c is not None))

    @property
    def cell_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.wanted)

    # ------------------------------------------------------------------ the differentiated value
    @cached_property
    def value_tree(self) -> Any:
        """The pytree of the differentiated value: what the function returned, without aux."""
        tree = self.traced.tree
        if not self.request.has_aux:
            return tree
        if not _is_pair(tree):
            name = self.traced.function.name
            raise GradientError(
                f"with has_aux=True, {name} must return a pair (value, aux), not {shown_tree(tree)}"
            )
        return tree.children()[0]

    def split_value(self, results: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
        """The value, and aux in a tuple of its own if there is any, from the leaves of what the function
        returned.
        """
        found = self.traced.tree.unflatten(results)
        return (found[0], tuple(found[1:])) if self.request.has_aux else (found, ())

    def check_scalar(self) -> None:
        """Checks that the value is one real number.

        Raises:
            GradientError: it is not.
        """
        what = f"the loss that {self.traced.function.name} returns"
        if self.value_tree != LEAF:
            advice = "" if self.request.has_aux else "; name what else it returns with has_aux"
            raise GradientError(f"{what} must be a scalar, not {shown_tree(self.value_tree)}{advice}")
        type = self.traced.function.results[0].type
        if type.shape != ():
            raise GradientError(
                f"{what} must be a scalar, not {type}; reduce it, or use jacrev or vector_grad"
            )
        if type.dtype.kind != "f":
            raise GradientError(f"{what} must be a real floating-point number, not {type}")

    # ------------------------------------------------------------------ putting derivatives together
    def assemble(self, by_args: Sequence[Any], by_cells: Sequence[Any]) -> Any:
        """The derivatives in the containers that the user gave.

        Args:
            by_args: one for each of `args`.
            by_cells: one for each of `wanted`.
        """
        rest = list(by_args)
        arguments = []
        for tree in self.arg_trees:
            arguments.append(tree.unflatten(rest[: tree.num_leaves]))
            rest = rest[tree.num_leaves :]
        request = self.request
        args = arguments[0] if len(arguments) == 1 and not is_sequence(request.argnums) else tuple(arguments)
        if request.states is None:
            return args
        found = dict(zip(self.wanted, by_cells, strict=True))
        parts = [_of_state(s, cs, found) for s, cs in zip(request.states.states, self.cells, strict=True)]
        states = request.states.fill(parts)
        return states if request.argnums is None else (states, args)


def _of_state(state: State, cells: Sequence[Cell | None], found: dict[Cell, Any]) -> Any:
    leaves = [
        found[c] if c is not None else jnp.zeros_like(slot.array)
        for c, slot in zip(cells, state.slots, strict=True)
    ]
    return state.structure.build(leaves, statics=False)


# ------------------------------------------------------------------------------------------------ resolving
def _arguments(request: Request, traced: Traced) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    if request.argnums is None:
        return (), ()
    trees, name = traced.argument_trees, traced.function.name
    starts, at = [], len(traced.captured)
    for tree in trees:
        starts.append(at)
        at += tree.num_leaves
    positions: list[int] = []
    numbers = resolve_argnums(request.argnums, len(trees), name)
    for n in numbers:
        if _is_static(trees[n]):
            raise GradientError(f"argnums names argument {n} of {name}, which is static")
        leaves = range(starts[n], starts[n] + trees[n].num_leaves)
        for i in leaves:
            shown = traced.arguments[i - len(traced.captured)]
            _check_real(traced.function.params[i].type, f"argument {shown!r}")
        positions.extend(leaves)
    return tuple(positions), tuple(trees[n] for n in numbers)


def _cells(request: Request, traced: Traced) -> tuple[tuple[Cell | None, ...], ...]:
    found = []
    for state in request.states.states if request.states else ():
        for slot in state.slots:
            _check_real(compat.type_of_aval(jax.typeof(slot.array)), f"the State {state.name!r}")
        cells = tuple(traced.cells_of(state))
        if request.check_states:
            _check_used(traced, state, cells)
        found.append(cells)
    return tuple(found)


def _check_used(traced: Traced, state: State, cells: Sequence[Cell | None]) -> None:
    name = traced.function.name
    if all(c is None for c in cells):
        raise GradientError(
            f"grad_states names the State {state.name!r}, but {name} does not use it; leave it out, or pass "
            "check_states=False to get zeros"
        )
    if not any(c is not None and traced.reads_entry(c) for c in cells):
        raise GradientError(
            f"grad_states names the State {state.name!r}, which {name} writes before it reads it: the value "
            "that it holds on entry has no influence; leave it out, or pass check_states=False to get zeros"
        )


def _check_real(type: Type, what: str) -> None:
    if not type.differentiable:
        raise GradientError(
            f"{what} is {type}: there is no derivative by integers, booleans and keys; convert it to "
            "floating point or leave it out"
        )


def _is_static(tree: Any) -> bool:
    return tree.node_data() is not None and tree.node_data()[0] is Hidden


def _is_pair(tree: Any) -> bool:
    return tree.node_data() is not None and tree.node_data()[0] in (tuple, list) and len(tree.children()) == 2


def shown_tree(tree: Any) -> str:
    """A pytree structure as an error message shows it."""
    return (
        "nothing (None)"
        if tree == jax.tree.structure(None)
        else str(tree).removeprefix("PyTreeDef(").removesuffix(")")
    )
