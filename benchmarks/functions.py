"""Functions of arguments whose higher derivatives are taken, by transforms of one name here and in JAX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import stategrad as sg

from .models import Array, mlp, normal


@dataclass(frozen=True)
class Derivative:
    """`of(sg)(fn)` and `of(jax)(fn)` are the same derivative of `fn`, to be called with `args`."""

    name: str
    fn: Callable[..., Array]
    args: tuple[Array, ...]
    of: Callable[[Any], Callable[[Callable[..., Any]], Any]]

    def ours(self) -> Any:
        """The derivative by stategrad, of a new function."""
        return self.of(sg)(self._fresh())

    def theirs(self) -> Any:
        """The derivative by JAX, of a new function, under `jax.jit`."""
        return jax.jit(self.of(jax)(self._fresh()))

    def _fresh(self) -> Callable[..., Array]:
        def fresh(*args: Array) -> Array:
            return self.fn(*args)

        return fresh


def hessian_mlp(width: int = 16) -> Derivative:
    """The Hessian of a loss of three layers by its input."""
    model = mlp(3, width, 1)
    return Derivative(
        "Hessian of an MLP",
        lambda x: model.loss(model.values, x[None]),
        (model.data[0][0],),
        lambda of: of.hessian,
    )


def third_derivative(width: int = 16) -> Derivative:
    """The third derivative of a network of three layers in one variable."""
    model = mlp(3, width, 1)

    def fn(t: Array) -> Array:
        return model.loss(model.values, t * model.data[0])

    return Derivative("third derivative of an MLP", fn, (jnp.float32(0.3),), lambda of: _power(of, 3))


def repeated(order: int) -> Derivative:
    """`grad` of `grad` of … of a small scalar function."""

    def fn(x: Array) -> Array:
        return jnp.sin(x) * jnp.exp(-x * x) + jnp.tanh(x) / (1.0 + x**2)

    return Derivative(
        f"grad^{order} of a scalar function", fn, (jnp.float32(0.3),), lambda of: _power(of, order)
    )


def _power(of: Any, order: int) -> Callable[[Callable[..., Any]], Any]:
    def repeat(fn: Callable[..., Any]) -> Any:
        for _ in range(order):
            fn = of.grad(fn)
        return fn

    return repeat


def affine(size: int = 512) -> tuple[Callable[..., Array], tuple[Array, ...], Callable[..., Array]]:
    """tanh(W x + b), arguments, and its Jacobian by x written by hand."""

    def fn(x: Array, w: Array, b: Array) -> Array:
        return jnp.tanh(w @ x + b)

    def jacobian(x: Array, w: Array, b: Array) -> Array:
        return (1 - jnp.tanh(w @ x + b) ** 2)[:, None] * w

    return fn, (normal(0, size, scale=1.0), normal(1, size, size), jnp.zeros(size)), jacobian
