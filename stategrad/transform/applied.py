"""A user's JAX-style gradient transform, applied to the program of a function inside of a trace of ours."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad.arguments import function_name
from stategrad.errors import GradientError
from stategrad.trace import trace
from stategrad.units import quantity, ratio, unitful

from .plan import commit_under_trace
from .pure_call import Container, Forms, Kept, PureCall
from .recipes import AsIs
from .selection import Request, Selection, shown_tree
from .staging import Staged, stage
from .static import Static
from .trips import WithValue


class Applied:
    """What a user's transform makes of a function with States; to be called in a trace of ours. If `watched`,
    the value comes beside it.
    """

    def __init__(
        self,
        target: Callable[..., Any],
        transform: Callable[..., Any],
        params: dict[str, Any],
        request: Request,
        static: Static,
        watched: bool = False,
    ) -> None:
        functools.update_wrapper(self, target)
        self.__name__ = function_name(target)
        self._target, self._transform, self._params = target, transform, params
        self.also_reads = transform, params
        """What guards look into, beside the target."""
        self._request, self._static, self._watched = request, static, watched
        self._sees_units = knows_units(transform)
        self.container = None if request.states is None else Container.of(request.states)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._static.hide(args, kwargs)
        traced = trace(self._target, args, kwargs)
        selection = self._request.select(traced)
        staged = stage(traced, AsIs().derive(traced))
        forms = Forms.full(selection) if self._sees_units else Forms.bare(selection)
        pure = PureCall(selection, staged, self.container, forms, args, kwargs)
        transformed = self._transform(pure.fun(), argnums=pure.argnums, has_aux=True, **self._params)
        if not callable(transformed):
            raise self._refused(f"a function of the same arguments, not {transformed!r}")
        gradients, results = self._parts(transformed(*pure.given, **kwargs))
        self._check(staged, results)
        commit_under_trace(staged, results)
        value, aux = selection.split_value(results[: traced.results])
        if not self._sees_units:
            gradients = self._with_units(gradients, selection, pure)
        outcome = self._request.outcome(gradients, value, aux)
        return WithValue(outcome, value) if self._watched else outcome

    def _parts(self, found: Any) -> tuple[Any, Sequence[Any]]:
        """The gradients and the results of the program in what a transformed function gives."""
        if isinstance(found, (tuple, list)) and len(found) == 2:
            first, second = found
            if isinstance(second, Kept):
                return first, second.results
            if isinstance(first, (tuple, list)) and len(first) == 2 and isinstance(first[1], Kept):
                return second, first[1].results
        given = shown_tree(jax.tree.structure(found))
        raise self._refused(
            f"a function that gives (gradients, aux) with the aux that it was given, not {given}"
        )

    def _with_units(self, gradients: Any, selection: Selection, pure: PureCall) -> Any:
        """The gradients with the unit of the value over that of what they are by."""
        if unitful((*pure.measures, *selection.value_measures)) is None:
            return gradients
        try:
            rows = selection.value_tree.flatten_up_to(gradients)
            each = [pure.wrt.flatten_up_to(row) for row in rows]
        except (TypeError, ValueError):
            each = None
        if each is None or self._transform is jax.hessian:
            raise GradientError(
                f"there are units, and what {shown(self._transform)} gives has not the form of a gradient or "
                f"Jacobian of {self.__name__}, so that its units are unknown; use the transform of stategrad"
            )
        found = [
            pure.wrt.unflatten([quantity(x, ratio(of, by)) for x, by in zip(row, pure.measures, strict=True)])
            for row, of in zip(each, selection.value_measures, strict=True)
        ]
        return selection.value_tree.unflatten(found)

    def _check(self, staged: Staged, results: Sequence[Any]) -> None:
        for expected, given in zip(staged.program.results, results, strict=True):
            type = jax.typeof(given)
            if (type.shape, type.dtype) != (expected.shape, expected.dtype):
                raise self._refused(
                    f"the aux of one call, as it was given: {expected.str_short()}, not {type.str_short()}"
                )

    def _refused(self, expected: str) -> GradientError:
        return GradientError(f"transform {shown(self._transform)} of {self.__name__} must return {expected}")


def shown(transform: Callable[..., Any]) -> str:
    """The name of a transform."""
    return getattr(transform, "__name__", repr(transform))


def knows_units(transform: Callable[..., Any]) -> bool:
    """Whether a transform is one of saiunit's, which handle quantities themselves."""
    return (getattr(transform, "__module__", None) or "").split(".")[0] == "saiunit"
