"""The programs that are measured: each with States for us, and as a pure function of a list for JAX."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

import stategrad as sg


@dataclass(frozen=True)
class Model:
    """One loss, twice: `loss(x)` reads `states`, `pure(values, x)` takes their values."""

    name: str
    states: list[sg.State]
    loss: Callable[[Any], Any]
    pure: Callable[[list[Any], Any], Any]
    x: Any


def mlp(layers: int, width: int = 16) -> Model:
    """`layers` times tanh(x W + b): two States a layer."""
    keys = jax.random.split(jax.random.key(0), layers)
    weights = [
        sg.ParamState(jax.random.normal(k, (width, width)) / width**0.5, name=f"w{i}")
        for i, k in enumerate(keys)
    ]
    biases = [sg.ParamState(jnp.zeros(width), name=f"b{i}") for i in range(layers)]

    def loss(x: Any) -> Any:
        for w, b in zip(weights, biases, strict=True):
            x = jnp.tanh(x @ w.value + b.value)
        return jnp.mean(x**2)

    def pure(values: list[Any], x: Any) -> Any:
        for w, b in zip(values[:layers], values[layers:], strict=True):
            x = jnp.tanh(x @ w + b)
        return jnp.mean(x**2)

    return Model(f"MLP of {layers} layers", [*weights, *biases], loss, pure, jnp.ones((8, width)))


def lstm(steps: int, width: int = 16) -> Model:
    """An LSTM cell in `jax.lax.scan`."""
    weight = sg.ParamState(jax.random.normal(jax.random.key(0), (2 * width, 4 * width)) / width, name="w")
    bias = sg.ParamState(jnp.zeros(4 * width), name="b")

    def run(w: Any, b: Any, xs: Any) -> Any:
        def cell(carry: Any, x: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(jnp.concatenate([x, h], axis=-1) @ w + b, 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), None

        zero = jnp.zeros((xs.shape[1], width))
        (h, _), _ = jax.lax.scan(cell, (zero, zero), xs)
        return jnp.mean(h**2)

    xs = jnp.ones((steps, 4, width))
    return Model(
        f"LSTM, scan of {steps}",
        [weight, bias],
        lambda xs: run(weight.value, bias.value, xs),
        lambda values, xs: run(*values, xs),
        xs,
    )
