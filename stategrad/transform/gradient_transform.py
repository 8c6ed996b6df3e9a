"""`GradientTransform`: any JAX-style gradient transform, applied to a function that reads and writes States."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from stategrad.arguments import function_name
from stategrad.errors import GradientError
from stategrad.graph import FlatStates
from stategrad.trace import trace

from .bound import Bound, without_self
from .derivative import Derivative
from .engine import Engine
from .gradient import GradientRecipe
from .jit import AsIs, Jitted
from .plan import commit_under_trace, operands_under_trace
from .selection import Request, Selection, shown_tree
from .staging import Staged, stage
from .static import Static

_OURS = (jax.grad, jax.value_and_grad)
"""What the gradient pass does itself, without JAX's differentiation around the program."""


class GradientTransform(Derivative):
    """A gradient transform written for pure functions, such as `jax.grad`, on a function with States.

    `transform` is called as `transform(fun, argnums=…, has_aux=True, **transform_params)` and gives a function
    of the arguments of `fun` that returns `(gradients, aux)`, or `((value, aux), gradients)` in the order of
    `jax.value_and_grad`. `fun` is pure, and States are hidden from it and from the gradients:

    * without `grad_states` it has the arguments of `target`, and `argnums` is the user's;
    * with `grad_states`, `argnums` is 0: the first argument of `fun` holds all that is differentiated by. That
      is the container of State values, or the pair of it and the arguments that the user's `argnums` name. The
      arguments that are not in it follow.

    It may differentiate `fun`, call it often, or change the gradients; all becomes part of one compiled
    program, traced at every call. What `target` writes is committed once, from the `aux` that comes back.

    Args:
        target: the function; left out, the result is a decorator.
        transform: see above. It sees a State that `grad_states` holds twice only once.
        grad_states, argnums, return_value, has_aux, check_states: as for `grad`.
        transform_params: further keyword arguments of `transform`.
        static_argnums, static_argnames: arguments that are part of the program.

    Attributes:
        target, __wrapped__: the function.
        stateful_target: the same, compiled.

    Raises:
        GradientError: `transform` does not return what it should; otherwise as for `grad`.
    """

    kind = "gradient transform"
    target: Callable[..., Any]

    def __new__(cls, target: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
        """The transform, or a decorator if there is no target yet."""
        if target is not None:
            return super().__new__(cls)
        if args:
            raise GradientError("GradientTransform without a target takes its other parameters by name")
        _check_transform(options.get("transform"))
        return functools.partial(cls, **options)

    def __init__(
        self,
        target: Callable[..., Any] | None = None,
        transform: Callable[..., Any] | None = None,
        grad_states: Any = None,
        argnums: int | Sequence[int] | None = None,
        return_value: bool = False,
        has_aux: bool | None = False,
        transform_params: dict[str, Any] | None = None,
        check_states: bool = True,
        *,
        static_argnums: Any = None,
        static_argnames: Any = None,
    ) -> None:
        assert_callable(target)
        made = _check_transform(transform)
        self.target = target
        self.transform = made
        self.request = Request.of(grad_states, argnums, has_aux, return_value, check_states)
        functools.update_wrapper(self, target)
        static = Static.of(target, static_argnums, static_argnames)
        self.stateful_target = Jitted(target, static_argnums, static_argnames, donate=False)
        params = dict(transform_params or {})
        if made in _OURS and not params:
            self._engine = Engine(target, GradientRecipe(self.request), static, retrace=True, donate=False)
        else:
            applied = Applied.to(target, made, params, self.request, static)
            self._engine = Engine(applied, AsIs(), static, retrace=True, donate=False)
        self._bound = Bound(
            lambda instance: type(self)(
                target.__get__(instance),
                made,
                grad_states,
                without_self(argnums),
                return_value,
                has_aux,
                transform_params,
                check_states,
                static_argnums=without_self(static_argnums),
                static_argnames=static_argnames,
            )
        )
