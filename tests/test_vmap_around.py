"""`jax.vmap` and ours around, inside and between other transforms: against JAX's of a pure function."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

from .jacobian_functions import array

OURS = SimpleNamespace(grad=sg.grad, vmap=sg.vmap, jvp=sg.jvp, jit=sg.jit, hessian=sg.hessian, vjp=sg.vjp)
INSIDE = SimpleNamespace(**{**vars(OURS), "vmap": jax.vmap})
THEIRS = SimpleNamespace(
    grad=jax.grad, vmap=jax.vmap, jvp=jax.jvp, jit=jax.jit, hessian=jax.hessian, vjp=jax.vjp
)
SCALE = array(3, seed=5)

TREE = {"a": array(4, 3), "b": (array(3, 4, seed=1), array(3, seed=2))}
AXES = {"a": 0, "b": (1, None)}
Y = array(2, 4, seed=3)


def energy(scale, x, y):
    """A scalar of a tree and a number, with a loop inside."""

    def step(c, _):
        return jnp.tanh(c * scale + x["b"][0]), jnp.sum(c * x["b"][1])

    last, sums = jax.lax.scan(step, x["a"] * y, None, 3)
    return jnp.sum(jnp.sin(last)) + jnp.sum(sums) * y


def stateful():
    scale = sg.State(SCALE, name="scale")
    return lambda x, y: energy(scale.value, x, y)


def summed(f):
    return lambda *args: sum(map(jnp.sum, jax.tree.leaves(f(*args))))


def descent(t, f):
    """Steps along per-example gradients."""

    def step(a, y):
        slopes = t.vmap(t.grad(lambda a, b, y: f({"a": a, "b": b}, y)), (0, AXES["b"], 0))
        return a - 0.1 * slopes(a, TREE["b"], y), a.sum()

    return t.jit(lambda a, ys: jax.lax.scan(step, a, ys))(TREE["a"], Y)


def descents(t, f):
    """The descents of each example on its own."""

    def run(x, ys):
        def step(a, y):
            return a - 0.1 * t.grad(lambda a: f({**x, "a": a}, y))(a), a.sum()

        return jax.lax.scan(step, x["a"], ys)

    return t.jit(t.vmap(run, (AXES, 1)))(TREE, Y)


def halved(y):
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + jnp.abs(c[1]) + 1, c[1] / 2), (y, y))


def slope(t, f):
    return lambda x, y: t.jvp(lambda y: f(x, y), (y,), (jnp.ones_like(y),))


def pulled(t, f):
    return lambda x, y: jax.tree.leaves(t.vjp(lambda y: f(x, y), y)[1](2.0))


def curvature(t, f):
    return t.hessian(lambda a, b, y: f({"a": a, "b": b}, y))


def branch(t, f):
    return t.grad(lambda x, y: jax.lax.cond(y > 0, lambda: f(x, y), lambda: f(x, y * y)))


ROWS, COLUMNS = (AXES, 0), {"a": 1, "b": (-1, 0)}
COMBINATIONS = {
    "vmap": lambda t, f: t.vmap(f, ROWS)(TREE, Y[0]),
    "vmap of grad": lambda t, f: t.vmap(t.grad(f), ROWS, COLUMNS)(TREE, Y[0]),
    "grad of vmap": lambda t, f: t.grad(summed(t.vmap(f, ROWS)))(TREE, Y[0]),
    "grad of vmap of grad": lambda t, f: t.grad(summed(t.vmap(t.grad(f), ROWS)))(TREE, Y[0]),
    "vmap of grad of vmap": lambda t, f: t.vmap(t.grad(summed(t.vmap(f, ROWS))), (None, 0))(TREE, Y),
    "vmap of vmap": lambda t, f: t.vmap(t.vmap(f, ROWS), (None, 0), 1)(TREE, Y),
    "vmap of jit of grad": lambda t, f: t.vmap(t.jit(t.grad(f)), (AXES, None))(TREE, Y[0, 0]),
    "jit of vmap of grad": lambda t, f: t.jit(t.vmap(t.grad(f), (AXES, None)))(TREE, Y[0, 0]),
    "vmap of hessian": lambda t, f: t.vmap(curvature(t, f), (0, AXES["b"], 0))(TREE["a"], TREE["b"], Y[0]),
    "vmap of jvp": lambda t, f: t.vmap(slope(t, f), ROWS)(TREE, Y[0]),
    "vmap of vjp": lambda t, f: t.vmap(pulled(t, f), ROWS)(TREE, Y[0]),
    "scan of vmap of grad": descent,
    "vmap of scan of grad": descents,
    "vmap of while": lambda t, f: t.vmap(t.jit(halved))(Y[0]),
    "vmap of grad of cond": lambda t, f: t.vmap(branch(t, f), ROWS)(TREE, Y[0]),
}


@pytest.mark.parametrize("kind", [OURS, INSIDE], ids=["ours", "jax.vmap of ours"])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_with_a_state_that_is_read(name, kind):
    found = COMBINATIONS[name](kind, stateful())
    expected = COMBINATIONS[name](THEIRS, lambda x, y: energy(SCALE, x, y))
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert jnp.shape(x) == jnp.shape(y)
        np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5)
