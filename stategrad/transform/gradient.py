"""`grad` and `value_and_grad`: gradients of scalar functions by arguments and by the values that States hold
on entry.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from stategrad.arguments import function_name
from stategrad.errors import GradientError
from stategrad.passes import Gradient
from stategrad.trace import Traced

from .bound import Bound, without_self
from .engine import Engine
from .selection import Request
from .stages import Staging
from .staging import Derived
from .static import Static


@dataclass(frozen=True)
class GradientRecipe:
    """The recipe of `grad`: the loss and its gradient by what was asked for."""

    request: Request

    def derive(self, traced: Traced) -> Derived:
        selection = self.request.select(traced)
        selection.check_scalar()
        step = Gradient(
            of=traced.function.name, wrt=selection.cell_names, args=selection.args, results=(0,), unit=True
        )

        def build(results: list[Any]) -> Any:
            value, aux = selection.split_value(results[: traced.results])
            by_args = results[traced.results : traced.results + len(selection.args)]
            by_cells = results[traced.results + len(selection.args) :]
            return self.request.outcome(selection.assemble(by_args, by_cells), value, aux)

        return Derived((step,), build, traced.results)


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
        recipe = GradientRecipe(Request.of(grad_states, argnums, has_aux, return_value, check_states))
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
    """The gradient of a scalar function by arguments and by States; also a decorator, with or without
    options.

    The gradient by a State is the one by the value that it holds on entry. What the function writes to States
    is committed once, as a plain call would.

    Args:
        fn: gives a real scalar, or with `has_aux` a pair of that and any pytree.
        grad_states: a State or any list, tuple, dict, mapping or Module of States; the result has its form.
        argnums: argument positions; an int gives a bare gradient, a sequence a tuple. None means 0 without
            `grad_states`, and none with them.
        has_aux, return_value: the result is `(gradients, value, aux)` with what was not asked for left out,
            and bare gradients if neither. `gradients` is `(by states, by arguments)` where both are asked
            for.
        check_states: a State that the function does not read is an error; otherwise its gradient is zero.
        static_argnums, static_argnames: arguments that are part of the program.

    Raises:
        GradientError: the loss is no real scalar; an argument or State has integers or booleans; a State is
        not read.
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
    """The value of a scalar function and its gradient: `(value, gradients)`, or `((value, aux), gradients)`
    with `has_aux`, in the order of `jax.value_and_grad`. The arguments are those of `grad`, without
    `return_value`.
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
