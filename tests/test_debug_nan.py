"""`debug_nan=True`: nothing that is not finite is returned or committed, and the error names what made it."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg


def line_of(function, text):
    lines, start = inspect.getsourcelines(function)
    return start + next(i for i, line in enumerate(lines) if text in line)


def test_forward():
    w = sg.State(jnp.array([1.0, 0.0, -1.0]), name="w")

    def loss(x):
        w.value = w.value + x
        return jnp.sum(jnp.log(w.value))

    with pytest.raises(sg.NonFiniteError, match=r"gave the result, .*nothing was committed") as caught:
        sg.grad(loss, grad_states=w, return_value=True, debug_nan=True)(0.0)
    error = caught.value
    assert (error.phase, error.operation, error.index) == ("forward", "log", (1,))
    assert error.location.line == line_of(loss, "jnp.log")
    assert "the gradient by the State 'w'" in error.tripped
    np.testing.assert_array_equal(w.value, [1.0, 0.0, -1.0])


def test_only_backward():
    w = sg.State(jnp.array([4.0, 0.0]), name="w")

    def loss():
        return jnp.sum(jnp.sqrt(w.value))

    sg.jit(loss, debug_nan=True)()
    with pytest.raises(sg.NonFiniteError) as caught:
        sg.grad(loss, grad_states=w, debug_nan=True)()
    assert caught.value.phase in ("backward", "tangent")
    assert caught.value.index == (1,)
    assert caught.value.location.line == line_of(loss, "jnp.sqrt")
    assert caught.value.tripped == ("the gradient by the State 'w'",)


def test_a_step_of_a_scan():
    h = sg.State(1.0, name="h")

    @sg.jit(debug_nan=True)
    def run(xs):
        def body(_, x):
            h.value = h.value / x
            return None, h.value

        return jax.lax.scan(body, None, xs)[1]

    xs = jnp.ones(50).at[37].set(0.0)
    with pytest.raises(sg.NonFiniteError, match=r"step 37 of 50 of the scan") as caught:
        run(xs)
    assert (caught.value.operation, caught.value.steps) == ("div", (37,))
    assert h.value == 1.0
    run(jnp.full(3, 2.0))
    assert h.value == 0.125


def test_a_step_of_a_reversed_scan_in_the_backward_pass():
    def loss(xs):
        return jax.lax.scan(lambda c, x: (c + jnp.sqrt(x), None), 0.0, xs)[0]

    with pytest.raises(sg.NonFiniteError) as caught:
        sg.grad(loss, debug_nan=True)(jnp.ones(10).at[4].set(0.0))
    assert caught.value.steps == (4,)


def test_what_comes_in_is_blamed_on_nobody_else():
    w = sg.State(jnp.array([1.0, np.nan]), name="w")
    with pytest.raises(sg.NonFiniteError, match=r"the State 'w' holds nan at index \[1\] on entry") as caught:
        sg.grad(lambda x: jnp.sum(x * w.value), debug_nan=True)(2.0)
    assert (caught.value.phase, caught.value.inputs) == ("input", ("the State 'w'",))
    with pytest.raises(sg.NonFiniteError, match="argument 'x' holds inf"):
        sg.jit(lambda x: x * 2, debug_nan=True)(jnp.inf)


def test_a_written_state_and_aux_trip_too():
    s = sg.State(1.0, name="s")

    def loss(x):
        s.value = 1.0 / (x - x)
        return x**2

    with pytest.raises(sg.NonFiniteError, match="the new value of the State 's'"):
        sg.grad(loss, debug_nan=True)(1.0)
    assert s.value == 1.0
    with pytest.raises(sg.NonFiniteError, match=r"the result\[1\]\['log'\]"):
        sg.grad(lambda x: (x**2, {"log": jnp.log(x)}), has_aux=True, debug_nan=True)(-1.0)


def test_masked_infinities_do_not_trip():
    def loss(x):
        return jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf))[0]

    x = jnp.array([1.0, -1.0, 2.0])
    np.testing.assert_allclose(sg.grad(loss, debug_nan=True)(x), jax.grad(loss)(x), rtol=1e-5)


def test_inside_another_trace_it_is_refused():
    inner = sg.grad(lambda x: x**2, debug_nan=True)
    with pytest.raises(sg.TraceError, match="pass debug_nan=True to the outermost transform"):
        sg.jit(lambda x: inner(x))(1.0)
