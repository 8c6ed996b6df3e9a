"""`vmap(axis_name=…)`: collectives of JAX along the batch, as under `jax.vmap`, and with States."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import stategrad as sg

X = jnp.arange(12.0).reshape(4, 3)


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def in_a_scan(x):
    def step(c, y):
        c = c + lax.pmean(y * c, "i")
        return c, lax.axis_index("i") + c

    return lax.scan(step, x[0], x)


def in_a_branch(x):
    return lax.cond(x[0] > 2, lambda x: lax.psum(x, "i"), lambda x: x * lax.axis_size("i"), x)


def in_a_loop(x):
    return lax.while_loop(lambda c: lax.pmax(c, "i") < 100, lambda c: c * 2 + 1 + lax.axis_index("i"), x[0])


@jax.jit
def inner(x):
    return lax.psum(jnp.sin(x), "i"), lax.axis_index("i")


def gradient_inside(x):
    return jax.grad(lambda y: lax.psum(jnp.sum(y**2) * x[0], "i"))(x)


FUNCTIONS = {
    "psum": lambda x: lax.psum(x, "i"),
    "psum of a pytree": lambda x: lax.psum({"a": x, "b": 1.0}, "i"),
    "psum of a constant": lambda x: x * lax.psum(1, "i"),
    "psum of what is the same for all": lambda x: lax.psum(X[0], "i") + x,
    "pmean": lambda x: x - lax.pmean(x, "i"),
    "pmax": lambda x: lax.pmax(x, "i") - lax.pmin(x, "i"),
    "axis_index": lambda x: x + lax.axis_index("i"),
    "only axis_index": lambda x: (lax.axis_index("i"), x),
    "axis_size": lambda x: x / lax.axis_size("i"),
    "all_gather": lambda x: lax.all_gather(x, "i"),
    "all_gather, tiled": lambda x: lax.all_gather(x, "i", tiled=True) * x[0],
    "psum_scatter": lambda x: lax.psum_scatter(jnp.outer(jnp.arange(4.0), x), "i"),
    "ppermute": lambda x: lax.ppermute(x, "i", [(j, (j + 1) % 4) for j in range(4)]),
    "all_to_all": lambda x: lax.all_to_all(jnp.outer(jnp.arange(4.0), x), "i", 0, 0),
    "scan": in_a_scan,
    "cond": in_a_branch,
    "while": in_a_loop,
    "jit": inner,
    "grad": gradient_inside,
    "softmax": lambda x: jnp.exp(x - lax.pmax(x, "i")) / lax.psum(jnp.exp(x - lax.pmax(x, "i")), "i"),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_jax_has_it(name):
    f = FUNCTIONS[name]
    expected = jax.vmap(f, axis_name="i")(X)
    same(sg.vmap(f, axis_name="i")(X), expected)
    same(sg.jit(sg.vmap(f, axis_name="i"))(X), expected)
    same(jax.jit(sg.vmap(f, axis_name="i"))(X), expected)


@pytest.mark.parametrize("name", ["psum", "pmean", "axis_index", "all_gather", "scan", "jit", "ppermute"])
def test_derivatives(name):
    f = FUNCTIONS[name]

    def loss(vmap):
        return lambda x: sum(
            jnp.sum(jnp.sin(y.astype(float))) for y in jax.tree.leaves(vmap(f, axis_name="i")(x))
        )

    same(sg.grad(loss(sg.vmap))(X), jax.grad(loss(jax.vmap))(X))
    same(jax.grad(loss(sg.vmap))(X), jax.grad(loss(jax.vmap))(X))
    same(sg.jvp(loss(sg.vmap), (X,), (X,)), jax.jvp(loss(jax.vmap), (X,), (X,)))


def test_our_gradients_inside():
    w = sg.State(2.0, name="w")

    def lane(x):
        return sg.grad(lambda y: lax.psum(jnp.sum(y**2) * w.value, "i"), grad_states=w, argnums=0)(x)

    def pure(x):
        return jax.grad(lambda w, y: lax.psum(jnp.sum(y**2) * w, "i"), argnums=(0, 1))(2.0, x)

    same(sg.vmap(lane, axis_name="i")(X), jax.vmap(pure, axis_name="i")(X))


def test_two_names():
    def f(x):
        return sg.vmap(
            lambda y: (lax.psum(y, ("i", "j")), y - lax.pmean(y, "i"), lax.axis_index("j")), axis_name="j"
        )(x)

    def pure(x):
        return jax.vmap(
            lambda y: (lax.psum(y, ("i", "j")), y - lax.pmean(y, "i"), lax.axis_index("j")), axis_name="j"
        )(x)

    expected = jax.vmap(pure, axis_name="i")(X)
    same(sg.vmap(f, axis_name="i")(X), expected)
    same(jax.vmap(f, axis_name="i")(X), expected)
    same(sg.vmap(pure, axis_name="i")(X), expected)


def test_one_name_twice():
    def nested(vmap):
        return vmap(
            lambda x: vmap(lambda y: lax.psum(y, "i"), axis_name="i")(x) + lax.psum(x, "i"), axis_name="i"
        )

    same(nested(sg.vmap)(X), nested(jax.vmap)(X))


def test_under_jax_vmap():
    s = sg.State(3.0, name="s")
    for f in (sg.jit(lambda x: lax.pmean(x, "i") * 3.0), sg.jit(lambda x: lax.pmean(x, "i") * s.value)):
        same(jax.vmap(f, axis_name="i")(X), jnp.broadcast_to(X.mean(0) * 3.0, X.shape))


def test_a_mean_may_be_written_to_a_shared_state():
    mean, seen = sg.State(jnp.zeros(3), name="mean"), sg.State(0.0, name="seen")
    own = sg.State(jnp.zeros(4), name="own")

    @sg.vmap(axis_name="batch", in_states=own)
    def normalise(x):
        mean.value = 0.5 * mean.value + 0.5 * lax.pmean(x, "batch")
        seen.value += lax.axis_size("batch")
        own.value = own.value + lax.axis_index("batch")
        return x - mean.value

    found = normalise(X)
    same(mean.value, X.mean(0) / 2)
    same(seen.value, jnp.array(4.0))
    same(own.value, jnp.arange(4.0))
    same(found, X - X.mean(0) / 2)
    with pytest.raises(sg.StateError, match="the State 'mean'"):
        sg.vmap(lambda x: setattr(mean, "value", x - lax.pmean(x, "i")), axis_name="i")(X)


def test_a_name_that_there_is_not():
    with pytest.raises(NameError, match="unbound axis name"):
        sg.vmap(lambda x: lax.psum(x, "j"), axis_name="i")(X)
    with pytest.raises(NameError, match="unbound axis name"):
        sg.vmap(lambda x: lax.psum(x, "i"))(X)


def test_sizes_are_not_mixed_up():
    f = sg.vmap(lambda x: lax.all_gather(x, "i") * lax.psum(1.0, "i") + lax.axis_index("i"), axis_name="i")
    for n in (2, 3, 2):
        x = jnp.arange(float(n))
        same(f(x), x * n + jnp.arange(n)[:, None])
