"""`grad` and `value_and_grad`: gradients of scalars by arguments and by what States hold on entry."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stategrad.ir.record import record
from stategrad.passes import Gradient
from stategrad.trace import Traced

from .budget import checked_budget
from .derivative import Derivative, decorated
from .selection import Request
from .staging import Derived


@record
class GradientRecipe:
    """The recipe of `grad`: the loss and its gradient by what was asked for; `value_first` in the order of
    `value_and_grad`.
    """

    request: Request
    residuals: int | float | None = None
    value_first: bool = False

    def derive(self, traced: Traced) -> Derived:
        """The gradient pass, with a cotangent of one."""
        selection = self.request.select(traced)
        selection.check_scalar()
        of = traced.function.name
        step = Gradient(of=of, wrt=selection.cell_names, args=selection.args, results=(0,), unit=True)

        def build(results: list[Any]) -> Any:
            value, aux = selection.split_value(results[: traced.results])
            by_args = results[traced.results : traced.results + len(selection.args)]
            by_cells = results[traced.results + len(selection.args) :]
            gradients = selection.assemble(by_args, by_cells, *selection.value_measures)
            if self.value_first:
                return ((value, *aux) if aux else value), gradients
            return self.request.outcome(gradients, value, aux)

        names = selection.names("gradient")
        return Derived((step,), build, traced.results, names, reverse=True, residuals=self.residuals)


class Grad(Derivative):
    """The gradient of a function; see `grad`."""

    kind = "gradient"

    def recipe(self, request: Request, residuals: int | float | None = None) -> GradientRecipe:
        """The gradient of a scalar."""
        return GradientRecipe(request, checked_budget(residuals))


class ValueAndGrad(Grad):
    """The value and gradient of a function; see `value_and_grad`."""

    def recipe(self, request: Request, residuals: int | float | None = None) -> GradientRecipe:
        """That of `grad`, with the value in front."""
        return GradientRecipe(request, checked_budget(residuals), value_first=True)


def grad(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = False,
    return_value: bool = False,
    check_states: bool = True,
    *,
    unit_aware: bool = False,
    debug_nan: bool = False,
    residuals: int | float | None = None,
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
        unit_aware: the gradient by or of saiunit's quantities is the unit of the loss over theirs; otherwise
            quantities there are an error.
        debug_nan: look at value, aux, gradients and written States before anything is returned or committed;
            if something is not finite, find the operation that made it.
        residuals: what may be kept for the backward pass that could be computed again: so many bytes, or as a
            float a part of what would be kept, 0 as little as possible. By default everything, and in loops
            what is dear to compute for the memory it takes.
        static_argnums, static_argnames: arguments that are part of the program.

    Raises:
        GradientError: the loss is no real scalar; an argument or State has integers or booleans; a State is
            not read.
        NonFiniteError: with `debug_nan`, something is not finite.
        TraceError, StateError: as for `jit`.
    """
    options: dict[str, Any] = {
        "grad_states": grad_states,
        "argnums": argnums,
        "has_aux": has_aux,
        "return_value": return_value,
        "check_states": check_states,
        "unit_aware": unit_aware,
        "debug_nan": debug_nan,
        "residuals": residuals,
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
    }
    return decorated(Grad, fn, options)


def value_and_grad(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = False,
    check_states: bool = True,
    *,
    unit_aware: bool = False,
    debug_nan: bool = False,
    residuals: int | float | None = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """The value of a scalar function and its gradient: `(value, gradients)`, or `((value, aux), gradients)`
    with `has_aux`, in the order of `jax.value_and_grad`. Arguments and errors are those of `grad`.
    """
    options: dict[str, Any] = {
        "grad_states": grad_states,
        "argnums": argnums,
        "has_aux": has_aux,
        "return_value": True,
        "check_states": check_states,
        "unit_aware": unit_aware,
        "debug_nan": debug_nan,
        "residuals": residuals,
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
    }
    return decorated(ValueAndGrad, fn, options)
