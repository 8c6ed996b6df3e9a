"""Models of sequences: an LSTM and a neural differential equation in `jax.lax.scan`, and a small GPT."""

import jax
import jax.numpy as jnp
import numpy as np

from .models import Array, Arrays, Model, cross_entropy, normal


def lstm(steps: int, width: int = 64, batch: int = 32) -> Model:
    """An LSTM cell over `steps` inputs, and a mean square of what it ends with."""

    def cell(w: Array, b: Array, carry: tuple[Array, Array], x: Array) -> tuple[tuple[Array, Array], None]:
        h, c = carry
        i, f, g, o = jnp.split(jnp.concatenate([x, h], axis=-1) @ w + b, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

    def loss(values: Arrays, xs: Array) -> Array:
        w, b = values
        zero = jnp.zeros(xs.shape[1:])
        (h, _), _ = jax.lax.scan(lambda carry, x: cell(w, b, carry, x), (zero, zero), xs)
        return jnp.mean(h**2)

    values = [normal(0, 2 * width, 4 * width), jnp.zeros(4 * width)]
    return Model(f"LSTM, scan of {steps}", values, loss, (normal(1, steps, batch, width, scale=1.0),))


def neural_ode(steps: int = 40, width: int = 32, hidden: int = 64, batch: int = 32) -> Model:
    """X' = W2 tanh(W1 x + b1) + b2 from 0 to 1 by the classical Runge-Kutta method of order four."""

    def field(values: Arrays, x: Array) -> Array:
        w1, b1, w2, b2 = values
        return jnp.tanh(x @ w1 + b1) @ w2 + b2

    def loss(values: Arrays, x: Array) -> Array:
        h = 1.0 / steps

        def step(x: Array, _: None) -> tuple[Array, None]:
            k1 = field(values, x)
            k2 = field(values, x + h / 2 * k1)
            k3 = field(values, x + h / 2 * k2)
            k4 = field(values, x + h * k3)
            return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        return jnp.mean(jax.lax.scan(step, x, None, length=steps)[0] ** 2)

    values = [normal(0, width, hidden), jnp.zeros(hidden), normal(1, hidden, width), jnp.zeros(width)]
    return Model("neural ODE", values, loss, (normal(2, batch, width, scale=1.0),))


def gpt(layers: int = 4, width: int = 64, length: int = 32, batch: int = 4, words: int = 256) -> Model:
    """Blocks of causal attention with four heads and a GELU network, normalised before; tied embedding."""
    shapes = [(width,), (width, 3 * width), (width, width), (width,), (width, 4 * width), (4 * width, width)]
    values = [normal(0, words, width, scale=0.02), normal(1, length, width, scale=0.02), jnp.ones(width)]
    for i in range(layers):
        values += [jnp.ones(s) if len(s) == 1 else normal(10 * i + 2 + j, *s) for j, s in enumerate(shapes)]

    def loss(values: Arrays, words: Array) -> Array:
        embedding, places, scale, *blocks = values
        x = embedding[words[:, :-1]] + places
        for i in range(layers):
            x = _block(x, *blocks[6 * i : 6 * i + 6])
        return cross_entropy(_normalised(x, scale) @ embedding.T, words[:, 1:])

    text = jnp.asarray(np.random.default_rng(3).integers(0, words, (batch, length + 1)))
    return Model("small GPT", values, loss, (text,))


def _block(x: Array, n1: Array, into: Array, out: Array, n2: Array, up: Array, down: Array) -> Array:
    q, k, v = jnp.split(_normalised(x, n1) @ into, 3, axis=-1)
    x = x + _attention(q, k, v, heads=4) @ out
    return x + jax.nn.gelu(_normalised(x, n2) @ up) @ down


def _attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    batch, length, width = q.shape
    q, k, v = (a.reshape(batch, length, heads, -1) for a in (q, k, v))
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (width // heads) ** -0.5
    seen = jnp.tril(jnp.ones((length, length), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, -1e9), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, length, width)


def _normalised(x: Array, scale: Array) -> Array:
    x = x - x.mean(axis=-1, keepdims=True)
    return scale * x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-5)
