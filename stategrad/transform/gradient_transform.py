"""`GradientTransform`: any JAX-style gradient transform on a function that reads and writes States."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad.arguments import function_name
from stategrad.errors import GradientError

from .applied import Applied, knows_units, shown
from .derivative import Derivative
from .engine import Engine
from .gradient import GradientRecipe
from .jit import Jitted
from .recipes import AsIs
from .selection import Request
from .staging import Recipe
from .static import Static
from .trips import WithValue

_OURS = (jax.grad, jax.value_and_grad)
"""What the gradient pass does itself, without JAX's differentiation around the program."""


class GradientTransform(Derivative):
    """A gradient transform written for pure functions, such as `jax.grad`, on a function with States.

    `transform` is called as `transform(fun, argnums=…, has_aux=True, **transform_params)` and gives a
    function of the arguments of `fun` that returns `(gradients, aux)`, or `((value, aux), gradients)` in the
    order of `jax.value_and_grad`. `fun` is pure, and States are hidden from it and from the gradients:

    * without `grad_states` it has the arguments of `target`, and `argnums` is the user's;
    * with `grad_states`, `argnums` is 0: the first argument of `fun` holds all that is differentiated by.
      That is the container of State values, or the pair of it and the arguments that the user's `argnums`
      name. The arguments that are not in it follow.

    It may differentiate `fun`, call it often, or change the gradients; all becomes part of one compiled
    program. What `target` writes is committed once, from the `aux` that comes back.

    Args:
        target: the function; left out, the result is a decorator.
        transform: see above. It sees a State that `grad_states` holds twice only once.
        grad_states, argnums, return_value, has_aux, check_states: as for `grad`.
        transform_params: further keyword arguments of `transform`.
        debug_nan: raise `NonFiniteError`, and commit nothing, if something is not finite.
        unit_aware: `transform` sees the mantissas of quantities, and its gradients (or Jacobians) get the
            unit of the value over that of what they are by. One of saiunit's sees the quantities themselves.
        static_argnums, static_argnames: arguments that are part of the program.

    Attributes:
        target, __wrapped__: the function.
        stateful_target: the same, compiled.

    Raises:
        GradientError: `transform` does not return what it should; otherwise as for `grad`.
    """

    kind = "gradient transform"

    def __new__(cls, target: Callable[..., Any] | None = None, *args: Any, **options: Any) -> Any:
        """The transform, or a decorator if there is no target yet."""
        if target is not None:
            return super().__new__(cls, target, *args, **options)
        if args:
            raise GradientError("GradientTransform without a target takes its other parameters by name")
        _callable(options.get("transform"), "transform")
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
        debug_nan: bool = False,
        *,
        unit_aware: bool = False,
        static_argnums: Any = None,
        static_argnames: Any = None,
    ) -> None:
        target = self.target = _callable(target, "target")
        transform = self.transform = _callable(transform, "transform")
        aware = unit_aware or knows_units(transform)
        self.request = Request.of(grad_states, argnums, has_aux, return_value, check_states, aware)
        self._look_like(target)
        with contextlib.suppress(TypeError, ValueError):  # some functions in C have none
            self.__signature__ = inspect.signature(target)
        static = Static.of(target, static_argnums, static_argnames)
        self.stateful_target = Jitted(target, static_argnums, static_argnames, donate=False)
        params = dict(transform_params or {})
        self.also_reads = transform, params
        """What guards look into, beside the target."""
        self._applied: Applied | None = None
        recipe: Recipe = GradientRecipe(self.request)
        if params or transform not in _OURS:
            self._applied = Applied(target, transform, params, self.request, static, debug_nan)
            recipe = AsIs()
        self._run_by(Engine(self._applied or target, recipe, static, debug_nan=debug_nan))

    # Otherwise inspect shows that of `__new__`.
    __signature__ = inspect.Signature([*inspect.signature(__init__).parameters.values()][1:])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = super().__call__(*args, **kwargs)
        found = found.outcome if isinstance(found, WithValue) else found
        container = self._applied.container if self._applied else None
        return container.restore(found) if container else found

    def __repr__(self) -> str:
        request = self.request
        states = ", ".join(s.name for s in request.states.states) if request.states else "none"
        options = "".join(f", {name}=True" for name in ("has_aux", "return_value") if getattr(request, name))
        return (
            f"GradientTransform({function_name(self.target)}, transform={shown(self.transform)}, "
            f"states: {states}, argnums={request.argnums}{options})"
        )


def _callable(given: Any, what: str) -> Callable[..., Any]:
    if callable(given):
        return given
    expected = "a function such as jax.grad" if what == "transform" else "the function to differentiate"
    raise GradientError(f"{what} of GradientTransform is {given!r}; expected {expected}")
