"""`vector_grad`: one pullback of ones, for functions with any number of real results."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stategrad.arguments import leaf_paths
from stategrad.errors import GradientError
from stategrad.ir.record import record
from stategrad.passes import Gradient
from stategrad.trace import Traced

from .budget import checked_budget
from .derivative import Derivative, decorated
from .selection import Request, Selection
from .staging import Derived


@record
class VectorGradientRecipe:
    """The recipe of `vector_grad`: the value, and the pullback of ones by what was asked for."""

    request: Request
    residuals: int | float | None = None

    def derive(self, traced: Traced) -> Derived:
        """The gradient pass, with a cotangent of ones for each result."""
        selection = self.request.select(traced)
        results = tuple(range(selection.value_tree.num_leaves))
        _check_real_results(selection)
        measure = selection.common_measure()
        of = traced.function.name
        step = Gradient(of=of, wrt=selection.cell_names, args=selection.args, results=results, unit=True)

        def build(found: list[Any]) -> Any:
            value, aux = selection.split_value(found[: traced.results])
            by_args = found[traced.results : traced.results + len(selection.args)]
            by_cells = found[traced.results + len(selection.args) :]
            gradients = selection.assemble(by_args, by_cells, measure)
            return self.request.outcome(gradients, value, aux)

        names = selection.names("gradient")
        return Derived((step,), build, traced.results, names, reverse=True, residuals=self.residuals)


def _check_real_results(selection: Selection) -> None:
    tree, function = selection.value_tree, selection.traced.function
    names = leaf_paths(tree, "result")
    if not names:
        raise GradientError(
            f"vector_grad of {function.name}, which returns no array: nothing to differentiate"
        )
    for value, name in zip(function.results, names, strict=False):
        if value.type.dtype.kind != "f":
            raise GradientError(
                f"{name} of {function.name} is {value.type}, and vector_grad is of real floating-point "
                "results only; return it as aux and say has_aux=True"
            )


class VectorGrad(Derivative):
    """The pullback of ones of a function; see `vector_grad`."""

    kind = "vector gradient"

    def recipe(self, request: Request, residuals: int | float | None = None) -> VectorGradientRecipe:
        """The pullback of ones."""
        return VectorGradientRecipe(request, checked_budget(residuals))


def vector_grad(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    return_value: bool = False,
    has_aux: bool | None = False,
    check_states: bool = True,
    *,
    unit_aware: bool = False,
    debug_nan: bool = False,
    residuals: int | float | None = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """The gradient of the sum of all results; also a decorator, with or without options.

    It has the form of what is differentiated by, whatever the results are. Of a function that acts on each
    element alone it is the derivative at each element.

    Args:
        fn: gives any pytree of real arrays, or with `has_aux` a pair of that and any pytree.
        grad_states, argnums, return_value, has_aux, check_states, debug_nan, residuals: as for
            `grad`.
        unit_aware: as for `grad`; all results must have one unit.
        static_argnums, static_argnames: arguments that are part of the program.

    Raises:
        GradientError: a result is not real; otherwise as for `grad`.
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
    return decorated(VectorGrad, fn, options)
