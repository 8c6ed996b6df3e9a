"""JAX's own mutable arrays (`jax.new_ref`): closed over by a function under `jax.jit`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .libraries import RATE, Gradient, Library, Step
from .models import Array, Arrays, Model


class Refs(Library):
    """Reads and writes references; the gradient is taken by what was read."""

    name = "jax refs"

    def step(self, model: Model) -> Step:
        refs = [jax.new_ref(jnp.array(v)) for v in model.values]

        @jax.jit
        def step(*data: Array) -> Array:
            values: Arrays = [r[...] for r in refs]
            loss, gradients = jax.value_and_grad(model.loss)(values, *data)
            for ref, value, gradient in zip(refs, values, gradients, strict=True):
                ref[...] = value - RATE * gradient
            return loss

        return Step(lambda: step(*model.data), lambda: [r[...] for r in refs])

    def gradient(self, model: Model) -> Callable[[], Gradient]:
        refs = [jax.new_ref(jnp.array(v)) for v in model.values]

        @jax.jit
        def gradient(*data: Array) -> Gradient:
            return jax.value_and_grad(model.loss)([r[...] for r in refs], *data)

        return lambda: gradient(*model.data)


LIBRARIES = (Refs(),)
