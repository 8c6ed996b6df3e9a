"""The losses that are measured: each once, as a pure function of a list of arrays that any library can hold.

Every library keeps the arrays in its own kind of state and calls the same arithmetic on them, so that what
differs is the library.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

import stategrad as sg

Array = jax.Array
Arrays = list[Array]


@dataclass(frozen=True)
class Model:
    """`loss(values, *data)` is a scalar."""

    name: str
    values: Arrays
    loss: Callable[..., Array]
    data: tuple[Array, ...]

    def states(self) -> list[sg.State]:
        """The values in new States."""
        return [sg.ParamState(jnp.array(v), name=f"v{i}") for i, v in enumerate(self.values)]

    def stateful(self, states: list[sg.State]) -> Callable[..., Array]:
        """The loss as a new function that reads these States."""
        return lambda *data: self.loss([s.value for s in states], *data)


def normal(seed: int, *shape: int, scale: float | None = None) -> Array:
    """Normal numbers, by default so scaled that a product with them keeps its size."""
    scale = shape[0] ** -0.5 if scale is None else scale
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def mlp(layers: int, width: int = 16, batch: int = 8) -> Model:
    """`layers` times tanh(x W + b), two arrays a layer, and a mean square."""
    values = [v for i in range(layers) for v in (normal(i, width, width), jnp.zeros(width))]

    def loss(values: Arrays, x: Array) -> Array:
        for w, b in zip(values[::2], values[1::2], strict=True):
            x = jnp.tanh(x @ w + b)
        return jnp.mean(x**2)

    return Model(f"MLP, {layers} layers", values, loss, (normal(99, batch, width, scale=1.0),))


def many(count: int) -> Model:
    """`count` arrays of four numbers, with next to no arithmetic: what a call costs for each array.

    No gradient needs more than its own array. If each needed the sum, XLA would compute it `count` times:
    that takes a minute to compile, and most of the time of a step.
    """

    def loss(values: Arrays, x: Array) -> Array:
        for v in values:
            x = x + v * v / count
        return jnp.mean(x)

    return Model(f"{count} small arrays", [normal(i, 4) for i in range(count)], loss, (jnp.zeros(4),))


def cnn(size: int = 32, batch: int = 16, channels: int = 16) -> Model:
    """Three convolutions with ReLU, each but the last followed by 2 by 2 mean pooling; ten classes."""
    sizes = (3, channels, 2 * channels, 2 * channels)
    kernels = [
        normal(i, 3, 3, a, b, scale=(9 * a) ** -0.5) for i, (a, b) in enumerate(itertools.pairwise(sizes))
    ]
    values = [*kernels, *[jnp.zeros(c) for c in sizes[1:]], normal(9, sizes[-1], 10)]

    def loss(values: Arrays, images: Array, labels: Array) -> Array:
        x = images
        for i in range(3):
            x = jax.lax.conv_general_dilated(
                x, values[i], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + values[3 + i])
            if i < 2:
                x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
        return cross_entropy(x.mean((1, 2)) @ values[6], labels)

    data = (normal(7, batch, size, size, 3, scale=1.0), jnp.arange(batch) % 10)
    return Model("CNN", values, loss, data)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """The mean negative log likelihood of the labels along the last axis."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
    return -jnp.mean(chosen)
