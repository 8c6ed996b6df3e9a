"""Functions of one or two arrays for Jacobian tests: what a basis can meet on its way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

A, B, C, D = 2, 3, 4, 5
"""Axes of different lengths, so that mixed-up ones show."""


def array(*shape: int, seed: int = 0) -> jax.Array:
    """Numbers that are the same in every run."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


W = array(C, B, seed=1)
KERNEL = array(3, 2, 3, seed=2)


def tanh_layer(x: Any) -> Any:
    return jnp.tanh(W @ x + 1.0)


def two_layers(x: Any) -> Any:
    return jax.nn.softplus(W.T @ tanh_layer(x))


def batched_layer(x: Any) -> Any:
    return jnp.tanh(x @ W.T)


def both_matrices(x: Any, y: Any) -> Any:
    return x @ y, jnp.sum(x) * y


def attention(q: Any, k: Any) -> Any:
    weights = jax.nn.softmax(jnp.einsum("bid,bjd->bij", q, k), axis=-1)
    return jnp.einsum("bij,bjd->bid", weights, k)


def layer_norm(x: Any) -> Any:
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)


def merged(x: Any) -> Any:
    return jnp.sin(x.reshape(A * B, C)) * 2


def split_and_merged(x: Any) -> Any:
    return (jnp.sin(x.reshape(A, B, 2, 2)) * 3).reshape(A * B, C).T


def merged_against_the_grain(x: Any) -> Any:
    return jnp.sin(x.T.reshape(C, B * A)) * jnp.arange(B * A)


def merged_and_added(x: Any) -> Any:
    return (x.reshape(-1) ** 2).reshape(x.shape) + x * jnp.arange(C)


def merged_unevenly(x: Any) -> Any:
    return jnp.cos(x.reshape(C, B, A)) @ array(A, D)


def with_ones(x: Any) -> Any:
    return jnp.sin(x[:, None, :, None] * x.sum()).squeeze(3) + x[None, :, :1]


def broadcast_from_one(x: Any) -> Any:
    return jnp.broadcast_to(x[:, :1] ** 2, (B, C)) * x


def sums(x: Any) -> Any:
    return x.sum(0), jnp.sin(x).sum((1, 2)), x.sum()


def parts(x: Any) -> Any:
    return jnp.concatenate([jnp.sin(x[1:]), x[:1] ** 2, jnp.zeros((1, *x.shape[1:]))], 0)[::-1]


def columns(x: Any) -> Any:
    return jnp.concatenate([x[:, :2] ** 2, jnp.flip(x, 1)], 1)


def padded(x: Any) -> Any:
    return jnp.pad(x**2, ((0, 0), (1, 2)))[:, ::2]


def running(x: Any) -> Any:
    return jnp.cumsum(jnp.sin(x), axis=1), jnp.cumprod(x, axis=0)


def picked(x: Any) -> Any:
    return x[jnp.array([2, 0, 2])] * 3, x[1, 2]


def placed(x: Any) -> Any:
    return jnp.zeros((B, C + 1)).at[jnp.arange(B), jnp.array([4, 0, 2])].add(x[:, 0] ** 2)


def window(x: Any) -> Any:
    i = jnp.argmax(x[0])
    part = jax.lax.dynamic_slice(jnp.sin(x), (0, i // 2), (B, 2))
    return jax.lax.dynamic_update_slice(x, part * 2, (0, 1))


def chosen(x: Any) -> Any:
    return jnp.where(x > 0, jnp.exp(x), x * 2), jnp.maximum(x, 0.1), jax.nn.relu(x)


def extremes(x: Any) -> Any:
    return x.max(0), jnp.sort(x, 1), jnp.linalg.norm(x)


def solved(x: Any) -> Any:
    return jnp.linalg.solve(x[:, :B] @ x[:, :B].T + jnp.eye(B), x[:, 3])


def convolved(x: Any) -> Any:
    return jax.lax.conv_general_dilated(
        jnp.sin(x), KERNEL, (1,), "SAME", dimension_numbers=("NCW", "OIW", "NCW")
    )


def recurrent(x: Any) -> Any:
    cell = jax.checkpoint(lambda h, xi: (jnp.tanh(0.5 * h + xi * h.sum()), h * xi))
    return jax.lax.scan(cell, x[0], x)


def branched(x: Any) -> Any:
    return jax.lax.cond(x.sum() > 100, lambda x: x * 2, lambda x: jnp.sin(x) * x[0], x)


def checkpointed(x: Any) -> Any:
    return jax.checkpoint(lambda x: jnp.sin(jnp.exp(x)) @ x.T)(x)


def in_a_dict(x: Any, y: Any) -> Any:
    return {"s": x.sum() * y[0], "t": (y, [x.T * y])}


def rounded(x: Any) -> Any:
    return (x.astype(jnp.bfloat16) * 2).astype(jnp.float32) * x


def diagonal(x: Any) -> Any:
    return jnp.diag(x @ x.T), jnp.trace(x @ x.T), jnp.outer(x[0], x[1])


def constant(x: Any) -> Any:
    return jnp.arange(3.0), x[0] * 0 + 1


FUNCTIONS: tuple[tuple[Callable[..., Any], tuple[jax.Array, ...]], ...] = (
    (tanh_layer, (array(B),)),
    (two_layers, (array(B),)),
    (batched_layer, (array(D, B),)),
    (both_matrices, (array(A, B), array(B, C))),
    (attention, (array(A, B, D), array(A, C, D))),
    (layer_norm, (array(B, C),)),
    (merged, (array(A, B, C),)),
    (split_and_merged, (array(A, B, C),)),
    (merged_against_the_grain, (array(A, B, C),)),
    (merged_and_added, (array(A, B, C),)),
    (merged_unevenly, (array(A, B, C),)),
    (with_ones, (array(B, C),)),
    (broadcast_from_one, (array(B, C),)),
    (sums, (array(A, B, C),)),
    (parts, (array(B, C),)),
    (columns, (array(B, C),)),
    (padded, (array(B, C),)),
    (running, (array(B, C),)),
    (picked, (array(B, C),)),
    (placed, (array(B, C),)),
    (window, (array(B, C),)),
    (chosen, (array(B, C),)),
    (extremes, (array(B, C),)),
    (solved, (array(B, C),)),
    (convolved, (array(A, 2, D),)),
    (recurrent, (array(D, B),)),
    (branched, (array(B, C),)),
    (checkpointed, (array(B, C),)),
    (in_a_dict, (array(B, C), array(B))),
    (rounded, (array(B),)),
    (diagonal, (array(B, C),)),
    (constant, (array(B),)),
)
