"""`grad` and `value_and_grad`: gradients of scalar functions by arguments and by the values that States hold on entry."""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import Hidden, function_name
from stategrad.errors import GradientError
from stategrad.ir import Cell, Type
from stategrad.passes import Gradient
from stategrad.state import State
from stategrad.trace import Traced

from .bound import Bound, without_self
from .engine import Engine
from .staging import Derived
from .stages import Staging
from .static import Static
from .wanted import WantedStates, resolve_argnums


@dataclass(frozen=True)
class GradientRecipe:
    """What to make of a traced loss function."""

    states: WantedStates | None
    argnums: Any
    has_aux: bool
    return_value: bool
    check_states: bool

    def derive(self, traced: Traced) -> Derived:
        """The gradient pass for these States and arguments, and the layout of its results."""
        args, arg_trees = self._arguments(traced)
        cells = self._cells(traced)
        results = self._loss(traced)
        wanted = tuple(dict.fromkeys(c.name for cs in cells for c in cs if c is not None))
        of = traced.function.name
        step = Gradient(of=of, wrt=wanted, args=args, results=results, unit=True)
        layout = _Layout(self, traced, arg_trees, tuple(cells), wanted)
        return Derived((step,), layout.build, traced.results)

    def _arguments(self, traced: Traced) -> tuple[tuple[int, ...], tuple[Any, ...]]:
        """Positions among the function's parameters to differentiate by, and the tree of each argument."""
        if self.argnums is None:
            return (), ()
        args = traced.argument_trees
        numbers = resolve_argnums(self.argnums, len(args), traced.function.name)
        starts, at = [], len(traced.captured)
        for tree in args:
            starts.append(at)
            at += tree.num_leaves
        positions = []
        for n in numbers:
            if _is_static(args[n]):
                raise GradientError(f"argnums names argument {n} of {traced.function.name}, which is static")
            for i in range(starts[n], starts[n] + args[n].num_leaves):
                _check_real(
                    traced.function.params[i].type, f"argument {traced.arguments[i - len(traced.captured)]!r}"
                )
                positions.append(i)
        return tuple(positions), tuple(args[n] for n in numbers)

    def _cells(self, traced: Traced) -> list[list[Cell | None]]:
        found = []
        for state in self.states.states if self.states else ():
            for slot in state.slots:
                _check_real(compat.type_of_aval(jax.typeof(slot.array)), f"the State {state.name!r}")
            cells = traced.cells_of(state)
            if self.check_states:
                _check_used(traced, state, cells)
            found.append(cells)
        return found

    def _loss(self, traced: Traced) -> tuple[int, ...]:
        name, tree = traced.function.name, traced.tree
        if self.has_aux and not _is_pair(tree):
            raise GradientError(
                f"with has_aux=True, {name} must return a pair (loss, aux), not {_shown_tree(tree)}"
            )
        loss = tree.children()[0] if self.has_aux else tree
        what = f"the loss that {name} returns"
        if loss != _LEAF:
            raise GradientError(
                f"{what} must be a scalar, not {_shown_tree(loss)}; name what else it returns with has_aux"
            )
        type = traced.function.results[0].type
        if type.shape != ():
            raise GradientError(
                f"{what} must be a scalar, not {type}; reduce it, or use jacrev or vector_grad"
            )
        if type.dtype.kind != "f":
            raise GradientError(f"{what} must be a real floating-point number, not {type}")
        return (0,)


_LEAF = jax.tree.structure(0)


@dataclass(frozen=True)
class _Layout:
    """Takes the results of a gradient program apart: loss, aux, gradients by arguments, gradients by cells."""

    recipe: GradientRecipe
    traced: Traced
    arg_trees: tuple[Any, ...]
    cells: tuple[Sequence[Cell | None], ...]
    wanted: tuple[str, ...]

    def build(self, results: list[Any]) -> Any:
        recipe, n = self.recipe, self.traced.results
        value = jax.tree.unflatten(self.traced.tree, results[:n])
        loss, *aux = value if recipe.has_aux else (value,)
        rest = results[n:]
        by_args = []
        for tree in self.arg_trees:
            by_args.append(tree.unflatten(rest[: tree.num_leaves]))
            rest = rest[tree.num_leaves :]
        gradients = self._gradients(by_args, dict(zip(self.wanted, rest, strict=True)))
        return (
            (gradients, *([loss] if recipe.return_value else []), *aux)
            if recipe.return_value or aux
            else gradients
        )

    def _gradients(self, by_args: list[Any], by_cell: dict[str, Any]) -> Any:
        recipe = self.recipe
        args = by_args[0] if len(by_args) == 1 and not _is_sequence(recipe.argnums) else tuple(by_args)
        if recipe.states is None:
            return args
        by_state = [
            self._of_state(s, cs, by_cell) for s, cs in zip(recipe.states.states, self.cells, strict=True)
        ]
        states = recipe.states.fill(by_state)
        return states if recipe.argnums is None else (states, args)

    def _of_state(self, state: State, cells: Sequence[Cell | None], by_cell: dict[str, Any]) -> Any:
        found = [
            by_cell[c.name] if c is not None else jax.numpy.zeros_like(slot.array)
            for c, slot in zip(cells, state.slots, strict=True)
        ]
        return state.structure.build(found, statics=False)


class GradientTransform:
    """The gradient of a function; see `grad`."""

    def __init__(
        self,
        fn: Callable[..., Any],
        grad_states: Any = None,
        argnums: Any = None,
        has_aux: bool = False,
        return_value: bool = False,
        check_states: bool = True,
        static_argnums: Any = None,
        static_argnames: Any = None,
    ) -> None:
        functools.update_wrapper(self, fn)
        options = (has_aux, return_value, check_states, static_argnums, static_argnames)
        states = WantedStates.of(grad_states)
        argnums = 0 if argnums is None and states is None else argnums
        recipe = GradientRecipe(states, _frozen(argnums), has_aux, return_value, check_states)
        self._engine = Engine(
            fn, recipe, Static.of(fn, static_argnums, static_argnames), retrace=True, donate=False
        )
        self._bound = Bound(
            lambda it: GradientTransform(
                fn.__get__(it),
                grad_states,
                without_self(argnums),
                *options[:3],
                without_self(static_argnums),
                static_argnames,
            )
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._engine(args, kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> Staging:
        """Traces for these arguments without running: `.module`, `.run_passes(hook)`, `.lower()`, …"""
        return Staging(self._engine, args, kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """Lowers to StableHLO for these arguments: `.as_text()`, `.compile()`."""
        return self.trace(*args, **kwargs).lower()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._bound.of(instance)

    def __repr__(self) -> str:
        return f"<gradient of {function_name(self._engine.fn)}>"


def grad(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    return_value: bool = False,
    check_states: bool = True,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """The gradient of a scalar function by arguments and by States; also a decorator, with or without options.

    The gradient by a State is the one by the value that it holds on entry. What the function writes to States is
    committed once, as a plain call would.

    Args:
        fn: gives a real scalar, or with `has_aux` a pair of that and any pytree.
        grad_states: a State or any list, tuple, dict, mapping or Module of States; the result has its form.
        argnums: argument positions; an int gives a bare gradient, a sequence a tuple. None means 0 without
            `grad_states`, and none with them.
        has_aux, return_value: the result is `(gradients, value, aux)` with what was not asked for left out, and bare
            gradients if neither. `gradients` is `(by states, by arguments)` where both are asked for.
        check_states: a State that the function does not read is an error; otherwise its gradient is zero.
        static_argnums, static_argnames: arguments that are part of the program.

    Raises:
        GradientError: the loss is no real scalar; an argument or State has integers or booleans; a State is not read.
        TraceError, StateError: as for `jit`.
    """
    options: dict[str, Any] = {
        "grad_states": grad_states,
        "argnums": argnums,
        "has_aux": has_aux,
        "return_value": return_value,
        "check_states": check_states,
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
    }
    if fn is None:
        return lambda fn: GradientTransform(fn, **options)
    return GradientTransform(fn, **options)


def value_and_grad(fn: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
    """The value of a scalar function and its gradient: `(value, gradients)`, or `((value, aux), gradients)` with
    `has_aux`, in the order of `jax.value_and_grad`. The arguments are those of `grad`, without `return_value`.
    """
    if "return_value" in options:
        raise GradientError("value_and_grad always returns the value: leave out return_value, or use grad")
    if fn is None:
        return lambda fn: value_and_grad(fn, *args, **options)
    return ValueAndGrad(fn, *args, return_value=True, **options)


class ValueAndGrad(GradientTransform):
    """The value and gradient of a function; see `value_and_grad`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        gradients, value, *aux = super().__call__(*args, **kwargs)
        return ((value, *aux) if aux else value), gradients


# ------------------------------------------------------------------------------------------------ small checks
def _frozen(argnums: Any) -> Any:
    return tuple(argnums) if _is_sequence(argnums) else argnums


def _is_sequence(argnums: Any) -> bool:
    return isinstance(argnums, (Sequence, set, frozenset))


def _is_static(tree: Any) -> bool:
    return tree.node_data() is not None and tree.node_data()[0] is Hidden


def _is_pair(tree: Any) -> bool:
    return tree.node_data() is not None and tree.node_data()[0] in (tuple, list) and len(tree.children()) == 2


def _shown_tree(tree: Any) -> str:
    return (
        "nothing (None)"
        if tree == jax.tree.structure(None)
        else str(tree).removeprefix("PyTreeDef(").removesuffix(")")
    )


def _check_real(type: Type, what: str) -> None:
    if not type.differentiable:
        raise GradientError(
            f"{what} is {type}: there is no derivative by integers, booleans and keys; convert it to floating point "
            "or leave it out"
        )


def _check_used(traced: Traced, state: State, cells: Sequence[Cell | None]) -> None:
    name = traced.function.name
    if all(c is None for c in cells):
        raise GradientError(
            f"grad_states names the State {state.name!r}, but {name} does not use it; leave it out, or pass "
            "check_states=False to get zeros"
        )
    if not any(c is not None and traced.reads_entry(c) for c in cells):
        raise GradientError(
            f"grad_states names the State {state.name!r}, which {name} writes before it reads it: the value that it "
            "holds on entry has no influence; leave it out, or pass check_states=False to get zeros"
        )
