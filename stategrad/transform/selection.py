"""What a derivative is taken of and by, and how its parts are put together for the user."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from stategrad import jax_compat as compat
from stategrad.arguments import Hidden
from stategrad.errors import GradientError
from stategrad.ir import Cell, Type
from stategrad.ir.record import record
from stategrad.state import State
from stategrad.structure import Structure
from stategrad.trace import Traced
from stategrad.units import Measure, measured, quantity, ratio, unitful

from .wanted import WantedStates, is_sequence, resolve_argnums

LEAF = jax.tree.structure(0)


@record
class Request:
    """What the user asked for: by which States and arguments, and what to return beside the derivatives."""

    states: WantedStates | None
    argnums: Any
    has_aux: bool = False
    return_value: bool = False
    check_states: bool = True
    unit_aware: bool = False
    keep_units: bool = False
    """Instead: what is asked for are tangents, which have the units of what they are tangents of."""

    @staticmethod
    def of(
        grad_states: Any,
        argnums: Any,
        has_aux: Any,
        return_value: bool,
        check_states: bool,
        unit_aware: bool = False,
    ) -> "Request":
        """Reads the parameters that all transforms share; without States and `argnums`, argument 0 is meant.

        Raises:
            GradientError: something in `grad_states` is no State.
        """
        states = WantedStates.of(grad_states)
        argnums = 0 if argnums is None and states is None else argnums
        argnums = tuple(argnums) if is_sequence(argnums) else argnums
        return Request(states, argnums, bool(has_aux), return_value, check_states, unit_aware)

    def outcome(self, derivatives: Any, value: Any, aux: Sequence[Any]) -> Any:
        """What the user gets: `(derivatives, value, aux)` without what was not asked for."""
        extra = (*([value] if self.return_value else []), *aux)
        return (derivatives, *extra) if extra else derivatives

    def select(self, traced: Traced) -> "Selection":
        """What was asked for in terms of a traced function.

        Raises:
            GradientError: an argument or State does not exist, has no derivative, or has no influence.
        """
        states = self.states.states if self.states else ()
        by_states = tuple(_by_state(self, traced, state) for state in states)
        return Selection(self, traced, *_arguments(self, traced), by_states)


@record
class ByState:
    """A State to differentiate by, as it is on entry.

    Attributes:
        cells: the cell of each leaf; None where the function does not touch it.
        measures: the units of the leaves, None for plain numbers; all None if the request is not unit-aware.
    """

    structure: Structure
    types: tuple[Any, ...]
    cells: tuple[Cell | None, ...]
    measures: tuple[Measure | None, ...]

    def build(self, leaf: "Leaf") -> Any:
        """What `leaf` gives for each array of the State, as its pytree."""
        leaves = [
            leaf(t if c is None else c, m)
            for c, t, m in zip(self.cells, self.types, self.measures, strict=True)
        ]
        return self.structure.build(leaves, statics=False)


@record
class Selection:
    """A request in terms of a traced function.

    Attributes:
        args: the parameters to differentiate by, one for each argument leaf.
        arg_trees: the pytree of each argument asked for.
        arg_measures: for each of `args` its unit.
        by_states: each State asked for.
    """

    request: Request
    traced: Traced
    args: tuple[int, ...]
    arg_trees: tuple[Any, ...]
    arg_measures: tuple[Measure | None, ...]
    by_states: tuple[ByState, ...]

    @cached_property
    def wanted(self) -> tuple[Cell, ...]:
        """The cells to differentiate by, each once."""
        return tuple(dict.fromkeys(c for by in self.by_states for c in by.cells if c is not None))

    @property
    def cell_names(self) -> tuple[str, ...]:
        return tuple(c.name for c in self.wanted)

    def names(self, what: str) -> tuple[str, ...]:
        """What a person calls the derivatives: those by `args`, then those by `wanted`."""
        first = len(self.traced.captured)
        by_args = (f"the {what} by {self.traced.arguments[i - first]!r}" for i in self.args)
        return (*by_args, *(f"the {what} by the State {c.name!r}" for c in self.wanted))

    # ------------------------------------------------------------------ the differentiated value
    @property
    def full_value_tree(self) -> Any:
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

    @cached_property
    def _value(self) -> tuple[Any, tuple[Measure | None, ...]]:
        return _measured(self.full_value_tree, self.request, f"what {self.traced.function.name} returns")

    @property
    def value_tree(self) -> Any:
        """The same without units, if the request is unit-aware."""
        return self._value[0]

    @property
    def value_measures(self) -> tuple[Measure | None, ...]:
        """The unit of each leaf of the value, if the request is unit-aware."""
        return self._value[1]

    def common_measure(self) -> Measure | None:
        """The unit that all leaves of the value have.

        Raises:
            GradientError: they have different ones, and cannot be summed.
        """
        units = {m.unit if m else None: m for m in self.value_measures}
        if len(units) > 1:
            raise GradientError(
                f"{self.traced.function.name} returns values with the units "
                f"{', '.join(str(u) if u is not None else '1' for u in units)}, which cannot be summed; "
                "use jacrev or jacfwd, or return one of them and the others as aux"
            )
        return next(iter(units.values()), None)

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
            shown = shown_tree(self.value_tree)
            for value in self.traced.function.results[: self.value_tree.num_leaves]:
                shown = shown.replace("*", str(value.type), 1)
            raise GradientError(f"{what} must be a scalar, not {shown}{advice}")
        type = self.traced.function.results[0].type
        if type.shape != ():
            raise GradientError(
                f"{what} must be a scalar, not {type}; reduce it, or use jacrev or vector_grad"
            )
        if type.dtype.kind != "f":
            raise GradientError(f"{what} must be a real floating-point number, not {type}")

    # ------------------------------------------------------------------ putting derivatives together
    def assemble(self, by_args: Sequence[Any], by_cells: Sequence[Any], of: Measure | None = None) -> Any:
        """The derivatives in the containers that the user gave.

        Args:
            by_args: one for each of `args`.
            by_cells: one for each of `wanted`.
            of: the measure of what was differentiated.
        """
        found = {**dict(enumerate(by_args)), **dict(zip(self.wanted, by_cells, strict=True))}

        def leaf(which: Any, by: Measure | None) -> Any:
            array = found[which] if isinstance(which, (int, Cell)) else jnp.zeros(which.shape, which.dtype)
            return quantity(array, ratio(of, by))

        return self.arrange(leaf)

    def arrange(self, leaf: "Leaf") -> Any:
        """What `leaf` gives for each array differentiated by, in the containers that the user gave."""
        leaves = [leaf(i, measure) for i, measure in enumerate(self.arg_measures)]
        arguments = []
        for tree in self.arg_trees:
            arguments.append(tree.unflatten(leaves[: tree.num_leaves]))
            leaves = leaves[tree.num_leaves :]
        request = self.request
        args = arguments[0] if len(arguments) == 1 and not is_sequence(request.argnums) else tuple(arguments)
        if request.states is None:
            return args
        states = request.states.fill([by.build(leaf) for by in self.by_states])
        return states if request.argnums is None else (states, args)


Leaf = Callable[[Any, Measure | None], Any]
"""`leaf(which, measure)`: `which` is the number of one of `args`, a cell, or the type of an array that the
function does not touch.
"""


def _measured(tree: Any, request: Request, what: str) -> tuple[Any, tuple[Measure | None, ...]]:
    """A pytree without its quantities, and the units of its leaves; only if the request is unit-aware.

    Raises:
        GradientError: it is not, and there are units that matter.
    """
    if request.keep_units:
        return tree, (None,) * tree.num_leaves
    bare, measures = measured(tree)
    if request.unit_aware:
        return bare, measures
    unit = unitful(measures)
    if unit is not None:
        raise GradientError(
            f"{what} has the unit {unit}: pass unit_aware=True to get derivatives with their units, or take "
            "the mantissa"
        )
    return tree, (None,) * len(measures)


# ------------------------------------------------------------------------------------------------ resolving
def _arguments(
    request: Request, traced: Traced
) -> tuple[tuple[int, ...], tuple[Any, ...], tuple[Measure | None, ...]]:
    if request.argnums is None:
        return (), (), ()
    trees, name = traced.argument_trees, traced.function.name
    starts, at = [], len(traced.captured)
    for tree in trees:
        starts.append(at)
        at += tree.num_leaves
    positions: list[int] = []
    found: list[Any] = []
    measures: list[Measure | None] = []
    for n in resolve_argnums(request.argnums, len(trees), name):
        if _is_static(trees[n]):
            raise GradientError(f"argnums names argument {n} of {name}, which is static")
        leaves = range(starts[n], starts[n] + trees[n].num_leaves)
        for i in leaves:
            shown = traced.arguments[i - len(traced.captured)]
            _check_real(traced.function.params[i].type, f"argument {shown!r}")
        bare, units = _measured(trees[n], request, f"argument {n} of {name}")
        positions.extend(leaves)
        measures.extend(units)
        found.append(bare)
    return tuple(positions), tuple(found), tuple(measures)


def _by_state(request: Request, traced: Traced, state: State) -> ByState:
    held = state.held()
    for type in held.types:
        _check_real(compat.type_of_aval(type), f"the State {state.name!r}")
    cells = tuple(traced.cells_of(state))
    if request.check_states:
        _check_used(traced, state, cells)
    tree, measures = _measured(held.structure.tree, request, f"the State {state.name!r}")
    statics = held.structure.statics
    measures = tuple(m for m, static in zip(measures, statics, strict=True) if static is None)
    return ByState(Structure(tree, statics), held.types, cells, measures)


def _check_used(traced: Traced, state: State, cells: Sequence[Cell | None]) -> None:
    name = traced.function.name
    if all(c is None for c in cells):
        twin = any(leaf.state.name == state.name for leaf in traced.leaves.values())
        advice = "it uses another State of that name; give the one that it uses" if twin else "leave it out"
        raise GradientError(
            f"grad_states names the State {state.name!r}, but {name} does not use it; {advice}, or pass "
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
