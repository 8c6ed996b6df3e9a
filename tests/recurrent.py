"""A recurrent function: pure, and with its carry in a State."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategrad as sg

X = jnp.array([0.5, -1.0, 2.0])
W = jnp.array([0.3, 1.2])
DX, DW = jnp.array([1.0, 0.5, -0.3]), jnp.array([-0.7, 0.2])


def close(found: Any, expected: Any, rtol: float = 2e-5) -> None:
    """Checks structure and numbers."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), found, expected)


def pure(x: jax.Array, w: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    """The value, and w at the end."""
    total = jnp.zeros(())
    for i in range(3):
        w = jnp.tanh(w * x[i])
        total = total + w.sum()
    return {"total": total, "last": w * x[0]}, w


def stateful(w: sg.State) -> Callable[[jax.Array], dict[str, jax.Array]]:
    """`pure` with `w` in a State, through a scan."""

    def fn(x):
        def body(total, xi):
            w.value = jnp.tanh(w.value * xi)
            return total + w.value.sum(), None

        total = jax.lax.scan(body, 0.0, x)[0]
        return {"total": total, "last": w.value * x[0]}

    return fn


CT = {"total": jnp.asarray(0.7), "last": jnp.array([1.0, -2.0])}
