"""Programs with state that other systems get wrong, with the right answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg


def test_checkpoint_has_its_effects_once():
    s = sg.State(1.0, name="s")

    @sg.checkpoint
    def f(y):
        out = jnp.sin(y * s.value)
        s.value += 1.0
        return out

    np.testing.assert_allclose(sg.grad(f)(1.0), jnp.cos(1.0), rtol=1e-6)
    assert s.value == 2.0


def test_checkpoint_sees_the_value_that_it_read():
    s = sg.State(2.0, name="s")

    @jax.checkpoint
    def f(y):
        return jnp.sin(y * s.value)

    def loss(y):
        out = f(y)
        s.value = 100.0
        return out

    np.testing.assert_allclose(sg.grad(loss)(0.5), 2.0 * jnp.cos(1.0), rtol=1e-6)


def test_a_scan_over_a_checkpointed_body_counts_once():
    n = sg.State(0, name="n")

    @jax.checkpoint
    def body(c, _):
        n.value += 1
        return jnp.sin(c), None

    sg.grad(lambda x: jax.lax.scan(body, x, length=5)[0])(1.0)
    assert n.value == 5


def test_a_while_condition_sees_what_the_body_writes():
    s, n = sg.State(1.0, name="s"), sg.State(0, name="n")

    def body(c):
        s.value = s.value / 2
        n.value += 1
        return c

    sg.jit(lambda: jax.lax.while_loop(lambda _: s.value > 0.1, body, 0.0))()
    assert n.value == 4 and s.value == 0.0625


def test_second_derivatives_through_a_state():
    s = sg.State(0.7, name="s")

    def f(x):
        s.value = jnp.sin(s.value * x)
        return s.value**2 * x

    def pure(x, s=0.7):
        return jnp.sin(s * x) ** 2 * x

    np.testing.assert_allclose(sg.grad(sg.grad(f))(0.4), jax.grad(jax.grad(pure))(0.4), rtol=1e-5)
    s.value = 0.7
    np.testing.assert_allclose(sg.hessian(f)(0.4), jax.grad(jax.grad(pure))(0.4), rtol=1e-5)
    np.testing.assert_allclose(s.value, jnp.sin(0.7 * 0.4), rtol=1e-6)


def test_writing_a_differentiated_value_to_another_state():
    w, last = sg.State(2.0, name="w"), sg.State(0.0, name="last")

    def loss(x):
        last.value = w.value * x
        return last.value**2

    assert sg.grad(loss, grad_states=w)(3.0) == 36.0
    assert last.value == 6.0


def test_an_exception_half_way_changes_nothing():
    w, n = sg.State(jnp.array(2.0), name="w"), sg.State(0, name="n")

    def loss(x):
        n.value += 1
        w.value = w.value * x
        if n.value.shape == ():
            raise RuntimeError("half-way")
        return w.value

    with pytest.raises(RuntimeError, match="half-way"):
        sg.grad(loss, grad_states=w)(3.0)
    assert (w.value, n.value) == (2.0, 0)
