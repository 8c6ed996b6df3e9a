"""hvp, and all products of derivatives and vectors inside of transforms and of transformed functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from tests.recurrent import CT, DW, DX, W, X, close, pure, stateful


@pytest.fixture
def w():
    return sg.ParamState(W, name="w")


@pytest.fixture
def recurrent(w):
    return stateful(w)


# ------------------------------------------------------------------------------------------------ hvp
def pure_loss(x, w):
    value, end = pure(x, w)
    return value["total"] ** 2 + jnp.sum(value["last"]) + jnp.sum(end**3)


@pytest.fixture
def loss(recurrent, w):
    def loss(x):
        value = recurrent(x)
        return value["total"] ** 2 + jnp.sum(value["last"]) + jnp.sum(w.value**3)

    return loss


def test_hvp_mixes_states_and_arguments(loss, w):
    (h_xx, h_xw), (h_wx, h_ww) = jax.hessian(pure_loss, (0, 1))(X, W)
    found = sg.hvp(loss, (X,), (DX,), grad_states=w, argnums=0, state_tangents=DW)
    close(found, (h_wx @ DX + h_ww @ DW, h_xx @ DX + h_xw @ DW), 1e-4)
    close(w.value, pure(X, W)[1])
    w.value = W
    close(sg.hvp(loss, (X,), (DX,)), h_xx @ DX, 1e-4)
    w.value = W
    close(sg.hvp(loss, (X,), (None,), state_tangents={w: DW}), h_xw @ DW, 1e-4)
    w.value = W
    close(sg.hvp(loss, (X,), grad_states=[w], state_tangents=[DW]), [h_ww @ DW], 1e-4)


def test_hvp_traces_once_and_returns_value_and_aux():
    traced = []

    def f(x, y):
        traced.append(x)
        return jnp.sum(x**3 * y), {"y": y}

    product, value, aux = sg.hvp(f, (X, 2.0), (DX, 0.5), argnums=(0, -1), has_aux=True, return_value=True)
    assert len(traced) == 1
    close(product, (6 * X * DX * 2.0 + 3 * X**2 * 0.5, jnp.sum(3 * X**2 * DX)))
    close((value, aux), (jnp.sum(X**3 * 2.0), {"y": jnp.asarray(2.0)}))


# --------------------------------------------------------------------------------------- inside of transforms
def cube(x):
    return x**3


PRODUCTS = [
    lambda x: sg.vjp(cube, x)[1](1.0),
    lambda x: sg.jvp(cube, (x,), (1.0,))[1],
    lambda x: sg.linearize(cube, x)[1](1.0),
    lambda x: sg.hvp(cube, (x,), (0.5,)) * x,
]


@pytest.mark.parametrize("product", PRODUCTS, ids=["vjp", "jvp", "linearize", "hvp"])
def test_products_inside_of_transforms(product):
    x, xs = jnp.asarray(2.0), jnp.array([0.5, 1.0, 2.0])
    close(product(x), 3 * x**2)
    close(sg.jit(product)(x), 3 * x**2)
    close(jax.jit(product)(x), 3 * x**2)
    close(jax.vmap(product)(xs), 3 * xs**2)
    close(jax.grad(product)(x), 6 * x)
    close(sg.grad(product)(x), 6 * x)
    close(jax.lax.map(product, xs), 3 * xs**2)
    with jax.disable_jit():
        close(product(x), 3 * x**2)
    with jax.enable_x64(True):
        np.testing.assert_allclose(product(np.float64(2.0)), 12.0, rtol=1e-14)


def test_products_with_states_inside_of_a_compiled_step(recurrent, w):
    count = sg.State(0, name="count")

    @sg.jit
    def step(x):
        count.value += 1
        _, pullback = sg.vjp(recurrent, x, grad_states=w, final_states=w)
        return pullback(CT, DW)

    _, back = jax.vjp(pure, X, W)
    by_x, by_w = back((CT, DW))
    close(step(X), (by_w, by_x))
    close(w.value, pure(X, W)[1])
    assert count.value == 1


def test_pullbacks_and_linear_functions_are_results_of_compiled_functions():
    out, pullback = jax.jit(lambda x: sg.vjp(cube, x))(2.0)
    assert (out, pullback(1.0)) == (8.0, 12.0)
    linear = sg.jit(lambda x: sg.linearize(cube, x)[1])(2.0)
    assert linear(1.0) == 12.0
    pullbacks = jax.vmap(lambda x: sg.vjp(cube, x)[1])(jnp.array([1.0, 2.0]))
    close(jax.vmap(lambda p: p(1.0))(pullbacks), jnp.array([3.0, 12.0]))


def test_products_of_transformed_functions(loss, w):
    gradient = sg.grad(loss, grad_states=w, argnums=0)
    _, linear = jax.linearize(jax.grad(pure_loss, (0, 1)), X, W)
    by_x, by_w = linear(DX, DW)
    close(sg.jvp(gradient, (X,), (DX,), state_tangents={w: DW})[1], (by_w, by_x), 1e-4)
    assert sg.hvp(lambda x: sg.jvp(cube, (x,), (1.0,))[1], (2.0,), (1.0,)) == 6.0
