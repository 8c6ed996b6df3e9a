"""`fwd_grad`: an estimate of the gradient from derivatives in random directions, without a backward pass.

In the direction v the derivative of a scalar is <g, v>. For v of independent standard normals, <g, v> v has
the mean g (Baydin and others, "Gradients without backpropagation", 2022).
"""

import functools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategrad import jax_compat as compat
from stategrad import random
from stategrad.errors import GradientError
from stategrad.user_frame import user_line

from .derivative import Derivative, decorated
from .linear_maps import Kind, LinearMap
from .point import Point
from .recipes import AsIs
from .selection import Request
from .static import Static
from .trips import WithValue


class ForwardGrad(Derivative):
    """An estimate of the gradient of a function; see `fwd_grad`."""

    kind = "forward gradient"

    def __init__(self, fn: Callable[..., Any], *args: Any, **options: Any) -> None:
        super().__init__(fn, *args, **options)
        how = {name: options[name] for name in ("tangent_size", "drct_der_clip", "key") if name in options}
        how["watched"] = self._engine.debug_nan
        # The estimate is traced as a whole: one program draws, differentiates and averages.
        self._engine.fn = _estimate(fn, self.request, self._engine.static, **how)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        found = super().__call__(*args, **kwargs)
        return found.outcome if isinstance(found, WithValue) else found

    def recipe(self, request: Request, **options: Any) -> AsIs:
        """Nothing is made of the program of the estimate."""
        return AsIs()


def _estimate(
    fn: Callable[..., Any],
    request: Request,
    static: Static,
    tangent_size: int | None = None,
    drct_der_clip: float | None = None,
    key: Any = None,
    watched: bool = False,
) -> Callable[..., Any]:
    """The function that estimates the gradient of `fn`; `watched` gives it with the value."""
    draws = _count(tangent_size)

    @functools.wraps(fn)
    def estimate(*args: Any, **kwargs: Any) -> Any:
        point = Point.at(fn, *static.hide(args, kwargs), request)
        point.selection.check_scalar()
        inputs = point.inputs
        kind = Kind.of(point, inputs, transposable=False)
        ran = point.run(kind.halves.forward)
        linear = LinearMap(kind, kind.residuals(ran.values))
        types = {n: point.pure.function.params[n].type for n in inputs.numbers}

        def product(key: Any) -> dict[int, Any]:
            direction = _direction(key, types)
            slope = linear.push(direction).get(0, 0.0)
            if drct_der_clip is not None:
                slope = jnp.clip(slope, -drct_der_clip, drct_der_clip)
            return {n: (v * slope).astype(v.dtype) for n, v in direction.items()}

        products = jax.vmap(product)(_keys(key, draws))
        gradient = inputs.build(
            {n: jnp.mean(p, 0) for n, p in products.items()}, *point.selection.value_measures
        )
        value, aux = point.split(ran)
        outcome = request.outcome(gradient, value, aux)
        return WithValue(outcome, value) if watched else outcome

    return estimate


def _direction(key: Any, types: Mapping[int, Any]) -> dict[int, Any]:
    """Standard normals of the types of the operands."""
    keys = jax.random.split(key, len(types))
    return {
        n: jax.random.normal(k, t.shape, compat.jax_dtype(t.dtype))
        for (n, t), k in zip(types.items(), keys, strict=True)
    }


def _keys(key: Any, count: int) -> Any:
    """A key for each draw: from the user's key or seed, or from the default RandomState."""
    if key is None:
        return random.split_key(count)
    return jax.random.split(jax.random.key(key) if isinstance(key, (int, np.integer)) else key, count)


def _count(tangent_size: Any) -> int:
    if tangent_size is None:
        return 1
    try:
        count = operator.index(tangent_size)
    except TypeError:
        count = 0
    if count < 1:
        raise GradientError(
            f"tangent_size of fwd_grad{user_line()} is {tangent_size!r}, expected the number of directions "
            "to draw, 1 or more, or None for one"
        )
    return count


def fwd_grad(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = False,
    return_value: bool = False,
    check_states: bool = True,
    *,
    unit_aware: bool = False,
    debug_nan: bool = False,
    tangent_size: int | None = None,
    drct_der_clip: float | None = None,
    key: Any = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """An estimate of the gradient of a scalar function without a backward pass; also a decorator, with or
    without options.

    For a random direction v it is v times the derivative in that direction. Its mean is the gradient, its
    variance grows with the number of variables.

    Args:
        fn: gives a real scalar, or with `has_aux` a pair of that and any pytree.
        grad_states, argnums, has_aux, return_value, check_states, unit_aware, debug_nan: as for `grad`.
        tangent_size: how many directions to draw and average over; None means one.
        drct_der_clip: derivatives in a direction are clipped to this size.
        key: one of JAX's keys or a whole number, for the same directions at each call. By default they are
            drawn from `stategrad.random.DEFAULT`, which moves on.
        static_argnums, static_argnames: arguments that are part of the program.

    Raises:
        GradientError: `tangent_size` is no positive number; otherwise as for `grad`.
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
        "static_argnums": static_argnums,
        "static_argnames": static_argnames,
        "tangent_size": tangent_size,
        "drct_der_clip": drct_der_clip,
        "key": key,
    }
    return decorated(ForwardGrad, fn, options)
