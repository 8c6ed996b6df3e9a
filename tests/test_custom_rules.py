"""Custom rules that look beyond their arguments: at States, and at values of the traced function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import stategrad as sg
from stategrad.ir import DerivativeError


@pytest.fixture
def weight():
    return sg.State(jnp.array(2.0), "weight")


def custom_vjp(forward, backward):
    """A function with `jax.custom_vjp`; the residual is the argument."""
    function = jax.custom_vjp(forward)
    function.defvjp(lambda x: (function(x), x), backward)
    return function


def custom_jvp(function, rule):
    """A function with `jax.custom_jvp`; the rule gives the tangent."""
    ruled = jax.custom_jvp(function)
    ruled.defjvp(lambda primals, tangents: (ruled(*primals), rule(primals[0], tangents[0])))
    return ruled


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_a_function_with_a_rule_reads_a_state(weight):
    function = custom_vjp(lambda x: x * weight.value, lambda x, ct: (ct,))
    close(sg.jit(function)(3.0), 6.0)
    close(sg.jit(lambda x: jax.vmap(function)(x))(jnp.arange(3.0)), [0.0, 2.0, 4.0])


def test_a_backward_rule_sees_the_state_as_it_was_at_the_call(weight):
    function = custom_vjp(lambda x: x + 1, lambda x, ct: (ct * weight.value * 10,))

    def loss(x):
        y = function(x)
        weight.value = jnp.array(7.0)
        return y

    close(sg.grad(loss, argnums=0)(3.0), 20.0)
    close(weight.value, 7.0)


def test_rules_in_a_loop_see_the_state_of_their_step(weight):
    function = custom_jvp(lambda x: jnp.sin(x) * weight.value, lambda x, t: jnp.cos(x) * t * weight.value * 9)

    def loss(x):
        def step(c, _):
            c = function(c)
            weight.value += 1
            return c, None

        return lax.scan(step, x, None, length=2)[0]

    close(sg.grad(loss, argnums=0)(1.0), 18 * jnp.cos(1.0) * 27 * jnp.cos(2 * jnp.sin(1.0)))
    close(weight.value, 4.0)


def test_reads_inside_loops_of_rules(weight):
    def twice(x):
        return lax.scan(lambda c, _: (c * weight.value, None), x, None, length=2)[0]

    function = custom_vjp(twice, lambda x, ct: (lax.fori_loop(0, 2, lambda _, c: c * weight.value * 5, ct),))
    close(sg.grad(lambda x: function(x), argnums=0)(3.0), 100.0)


def test_second_derivatives_follow_the_rule(weight):
    function = custom_jvp(lambda x: jnp.sin(x), lambda x, t: jnp.cos(x) * t * weight.value)
    twice = sg.grad(lambda x: sg.grad(lambda y: function(y), argnums=0)(x), argnums=0)
    close(twice(1.0), -2 * jnp.sin(1.0))


def test_a_state_read_by_a_rule_alone_may_be_differentiated(weight):
    function = custom_vjp(lambda x: x * 2, lambda x, ct: (ct * weight.value,))
    gradient, by_argument = sg.grad(lambda x: function(x) * weight.value, grad_states=weight, argnums=0)(3.0)
    close(gradient, 6.0)
    close(by_argument, 4.0)


def test_a_differentiated_state_inside_the_function_is_an_error(weight):
    function = custom_vjp(lambda x: x * weight.value, lambda x, ct: (ct,))
    with pytest.raises(Exception, match="'weight' is differentiated, and used inside") as caught:
        sg.grad(lambda x: function(x), grad_states=weight)(3.0)
    assert isinstance(caught.value.__cause__, DerivativeError)


def test_a_write_inside_a_rule_is_an_error(weight):
    def backward(x, ct):
        weight.value = ct
        return (ct,)

    function = custom_vjp(lambda x: x * 1, backward)
    with pytest.raises(sg.StateError, match=r"'weight' is written inside a function with jax\.custom_jvp"):
        sg.grad(lambda x: function(x), argnums=0)(3.0)
    close(weight.value, 2.0)


# ----------------------------------------------------------------------------- values of the traced function
def scaled(x, y):
    factor = y * 2
    return custom_vjp(lambda x: x, lambda _, ct: (ct * factor,))(x)


def test_a_backward_rule_closes_over_a_value():
    close(sg.grad(scaled, argnums=0)(3.0, 4.0), 8.0)


def test_a_forward_rule_closes_over_a_value():
    def function(x, y):
        factor = y * 2
        return custom_jvp(lambda x: x * factor, lambda x, t: t * factor * factor)(x)

    close(sg.grad(function, argnums=0)(3.0, 4.0), 64.0)


def test_a_differentiated_value_closed_over_is_an_error():
    with pytest.raises(Exception, match="the value closed over is differentiated"):
        sg.grad(scaled, argnums=(0, 1))(3.0, 4.0)


def test_a_rule_in_a_loop_that_closes_over_a_value_outside_is_an_error():
    def loss(x, y):
        return (
            lax.fori_loop(0, 2, lambda _, c: scaled(c, y), x)
            + lax.scan(
                lambda c, _: (custom_vjp(lambda c: c, lambda _, ct: (ct * y,))(c), None), x, None, length=2
            )[0]
        )

    with pytest.raises(Exception, match="closes over a value of the traced function") as caught:
        sg.grad(loss, argnums=0)(3.0, 4.0)
    assert isinstance(caught.value.__cause__, DerivativeError)


def test_a_tangent_rule_with_a_loop_reads_a_state(weight):
    def rule(x, t):
        return lax.fori_loop(0, 3, lambda i, total: total + t * weight.value * x, 0.0)

    def pure(x):
        return lax.fori_loop(0, 3, lambda i, total: total + 2.0 * x, 0.0)

    function = custom_jvp(lambda x: x**2, rule)
    close(sg.grad(function)(1.5), 9.0)
    close(sg.jvp(function, (1.5,), (1.0,))[1], 9.0)
    close(sg.grad(sg.grad(function))(1.5), jax.grad(pure)(1.5))
