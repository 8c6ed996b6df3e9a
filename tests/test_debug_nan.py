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


def masked_attention(x):
    weights = jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf))
    return jnp.sum(weights)


def test_a_nan_is_blamed_on_what_made_it_not_on_an_infinity_before_it():
    best = sg.State(jnp.inf, name="best")

    def lowest(xs):
        return jax.lax.scan(lambda c, x: (jnp.minimum(c, x), jnp.log(x)), jnp.inf, xs)

    def forget(x):
        best.value = best.value * 0.0
        return x

    row = jnp.array([-1.0, -1.0])
    for f, x, operation in ((masked_attention, row, "sub"), (lowest, row, "log"), (forget, 1.0, "mul")):
        with pytest.raises(sg.NonFiniteError) as caught:
            sg.jit(f, debug_nan=True)(x)
        assert (caught.value.operation, caught.value.phase) == (operation, "forward")
        assert caught.value.location.file.endswith("test_debug_nan.py")
    assert best.value == jnp.inf
    slope = sg.grad(masked_attention, debug_nan=True)(jnp.array([1.0, -1.0]))
    np.testing.assert_allclose(slope, [0.0, 0.0], atol=1e-6)  # the weights add up to 1


def test_an_infinite_literal():
    with pytest.raises(sg.NonFiniteError, match=r"a literal or an array .* holds -inf on entry"):
        sg.jit(lambda x: jnp.where(x > 0, x, -jnp.inf), debug_nan=True)(jnp.array([1.0, -1.0]))


def test_inside_another_trace_it_is_refused():
    inner = sg.grad(lambda x: x**2, debug_nan=True)
    with pytest.raises(sg.TraceError, match="pass debug_nan=True to the outermost transform"):
        sg.jit(lambda x: inner(x))(1.0)


# ------------------------------------------------------------------------------- every transform has it
def test_the_phase_of_a_derivative_in_reverse():
    w = sg.State(jnp.array([4.0, 0.0]), name="w")
    with pytest.raises(sg.NonFiniteError) as caught:
        sg.grad(lambda: jnp.sum(jnp.sqrt(w.value)), grad_states=w, debug_nan=True)()
    assert caught.value.phase == "backward"
    with pytest.raises(sg.NonFiniteError) as caught:
        sg.jacfwd(jnp.sqrt, debug_nan=True)(0.0)
    assert caught.value.phase == "tangent"


@pytest.fixture
def w():
    return sg.State(jnp.array([4.0, 1.0]), name="w")


def root(w):
    def root(x):
        w.value = w.value - x
        return jnp.sum(jnp.sqrt(w.value))

    return root


def test_vjp_forward(w):
    with pytest.raises(sg.NonFiniteError, match=r"root gave the result.*nothing was committed") as caught:
        sg.vjp(root(w), 2.0, debug_nan=True)
    error = caught.value
    assert (error.phase, error.operation, error.index) == ("forward", "sqrt", (1,))
    assert error.location.line == line_of(root, "jnp.sqrt")
    np.testing.assert_array_equal(w.value, [4.0, 1.0])


def test_only_in_the_pullback(w):
    value, pullback = sg.vjp(root(w), 1.0, grad_states=w, debug_nan=True)
    np.testing.assert_allclose(value, np.sqrt(3.0), rtol=1e-6)
    np.testing.assert_array_equal(w.value, [3.0, 0.0])
    with pytest.raises(sg.NonFiniteError) as caught:
        pullback(1.0)
    error = caught.value
    assert str(error).startswith(
        "the pullback of root gave the cotangent of the State 'w', the cotangent of argument 'x' that is not "
        "finite\n  phase     backward\n"
    )
    assert (error.phase, error.index) == ("backward", (1,))
    assert error.location.line == line_of(root, "jnp.sqrt")


def test_a_cotangent_that_is_not_finite_is_reported_as_that(w):
    _, pullback, aux = sg.vjp(
        lambda x: ({"a": x * w.value}, x), 1.0, grad_states=[w], has_aux=True, debug_nan=True
    )
    by_w, by_x = pullback({"a": jnp.ones(2)})
    np.testing.assert_array_equal(by_w[0], [1.0, 1.0])
    assert (aux, by_x) == (1.0, 5.0)
    message = r"the cotangent of the result\['a'\] of lambda holds nan at index \[1\] on entry"
    with pytest.raises(sg.NonFiniteError, match=message) as caught:
        pullback({"a": jnp.array([1.0, jnp.nan])})
    assert (caught.value.phase, caught.value.inputs) == (
        "input",
        ("the cotangent of the result['a'] of lambda",),
    )
    final = sg.vjp(root(w), 0.0, final_states=w, debug_nan=True)[1]
    with pytest.raises(sg.NonFiniteError, match="the cotangent of the State 'w' holds inf at index"):
        final(1.0, jnp.array([0.0, jnp.inf]))


def test_an_input_that_only_the_pullback_uses():
    def masked(x):
        return jnp.where(x > 0, 1.0 / x, 2.0 * x)

    with pytest.raises(sg.NonFiniteError) as caught:
        sg.vjp(masked, 0.0, debug_nan=True)[1](1.0)
    assert (caught.value.phase, caught.value.operation) == ("forward", "div")
    _, pullback = sg.vjp(lambda x, y: jnp.where(x > 0, x * y, 1.0), -1.0, jnp.inf, debug_nan=True)
    with pytest.raises(sg.NonFiniteError, match="argument 'y' holds inf on entry"):
        pullback(1.0)


def test_a_step_of_a_loop_in_a_pullback():
    def total(xs):
        return sg.for_loop(jnp.sqrt, xs).sum()

    _, pullback = sg.vjp(total, jnp.ones(10).at[4].set(0.0), debug_nan=True)
    with pytest.raises(sg.NonFiniteError, match="step 4 of 10 of the scan") as caught:
        pullback(1.0)
    assert (caught.value.phase, caught.value.steps) == ("backward", (4,))


def test_linearize(w):
    with pytest.raises(sg.NonFiniteError, match="root gave the result"):
        sg.linearize(root(w), 2.0, debug_nan=True)
    _, linear = sg.linearize(root(w), 1.0, grad_states=w, argnums=0, debug_nan=True)
    with pytest.raises(sg.NonFiniteError, match="the linear function of root gave the tangent") as caught:
        linear(1.0, state_tangents=jnp.ones(2))
    assert (caught.value.phase, caught.value.index) == ("tangent", (1,))
    w.value = jnp.array([4.0, 1.0])
    _, linear = sg.linearize(root(w), 0.0, grad_states=w, argnums=0, debug_nan=True)
    np.testing.assert_allclose(linear(1.0), -0.75)
    with pytest.raises(sg.NonFiniteError, match="the tangent of the State 'w' holds nan at index"):
        linear(1.0, state_tangents=jnp.array([jnp.nan, 1.0]))


def test_jvp(w):
    with pytest.raises(sg.NonFiniteError, match="root gave the tangent of the result of root that") as caught:
        sg.jvp(root(w), (1.0,), (1.0,), state_tangents={w: jnp.ones(2)}, final_states=w, debug_nan=True)
    assert caught.value.phase == "tangent"
    assert caught.value.location.line == line_of(root, "jnp.sqrt")
    np.testing.assert_array_equal(w.value, [4.0, 1.0])
    with pytest.raises(sg.NonFiniteError, match="the tangent of argument 'x' holds nan on entry"):
        sg.jvp(root(w), (0.0,), (jnp.nan,), debug_nan=True)
    with pytest.raises(sg.NonFiniteError, match="the tangent of the State 'w' holds inf"):
        sg.jvp(root(w), (0.0,), (0.0,), state_tangents={w: jnp.array([1.0, jnp.inf])}, debug_nan=True)
    value, tangent = sg.jvp(root(w), (0.0,), (1.0,), debug_nan=True)
    np.testing.assert_allclose((value, tangent), (3.0, -0.75))


def test_hvp(w):
    def power(x):
        w.value = w.value * 1.0
        return x**1.5 + jnp.sum(w.value**2) * x

    with pytest.raises(sg.NonFiniteError, match="power gave the product by argument 'x'") as caught:
        sg.hvp(power, (0.0,), (1.0,), debug_nan=True)
    assert caught.value.phase == "backward"
    found = sg.hvp(power, (4.0,), (1.0,), grad_states=w, argnums=0, debug_nan=True)
    np.testing.assert_allclose(found[1], 0.75 / 2)


def test_the_transforms_of_functions():
    def bad(x):
        return jnp.log(x)

    for transform in (
        sg.grad, sg.value_and_grad, sg.vector_grad, sg.jacrev, sg.jacobian, sg.jacfwd, sg.hessian, sg.jit,
        lambda f, debug_nan: sg.fwd_grad(f, key=0, debug_nan=debug_nan),
        lambda f, debug_nan: sg.GradientTransform(f, jax.grad, debug_nan=debug_nan),
        lambda f, debug_nan: sg.GradientTransform(f, lambda f, **k: jax.grad(f, **k), debug_nan=debug_nan),
        lambda f, debug_nan: lambda x: sg.vmap(f, debug_nan=debug_nan)(jnp.stack([x + 1.0, x])),
    ):  # fmt: skip
        seen = sg.State(0.0, name="seen")

        def counting(x, seen=seen):
            seen.value += 1.0
            return bad(x)

        made = transform(counting, debug_nan=True)
        made(2.0)
        with pytest.raises(RuntimeError) as caught:
            made(-1.0)
        error = caught.value
        assert isinstance(error, sg.NonFiniteError) and seen.value == 1.0
        assert (error.operation, error.phase) == ("log", "forward")
        assert any("the result" in name for name in error.tripped)
        assert error.location.line == line_of(test_the_transforms_of_functions, "jnp.log(x)")


def diverge(x):
    return jnp.sqrt(x - 1.0)


LOOPS = {
    "scan": lambda f, **k: sg.scan(lambda c, x: (f(c), x), 2.5, jnp.ones(3), **k),
    "for_loop": lambda f, **k: sg.for_loop(f, jnp.array([2.0, 1.5, 0.0]), **k),
    "while_loop": lambda f, **k: sg.while_loop(lambda c: c > 0.1, f, 2.5, **k),
    "bounded_while_loop": lambda f, **k: sg.bounded_while_loop(lambda c: c > 0.1, f, 2.5, max_steps=4, **k),
    "checkpointed_scan": lambda f, **k: sg.checkpointed_scan(lambda c, x: (f(c), x), 2.5, jnp.ones(3), **k),
    "checkpointed_for_loop": lambda f, **k: sg.checkpointed_for_loop(f, jnp.array([2.0, 1.5, 0.0]), **k),
    "cond": lambda f, **k: sg.cond(True, f, lambda x: x, 0.0, **k),
    "switch": lambda f, **k: sg.switch(1, [lambda x: x, f], 0.0, **k),
    "ifelse": lambda f, **k: sg.ifelse([False, True], [lambda x: x, f], 0.0, **k),
}


@pytest.mark.parametrize("name", LOOPS)
def test_loops_and_branches(name):
    seen = sg.State(0, name="seen")

    def counting(x):
        seen.value += 1
        return diverge(x)

    with pytest.raises(sg.NonFiniteError) as caught:
        LOOPS[name](counting, debug_nan=True)
    assert caught.value.operation == "sqrt" and caught.value.phase == "forward"
    assert caught.value.location.line == line_of(diverge, "jnp.sqrt")
    assert seen.value == 0
    if "cond" not in name and name not in ("switch", "ifelse"):
        assert caught.value.steps[:1] in ((2,), (1,)) or name.startswith(("checkpointed", "bounded"))
    with jax.disable_jit(), pytest.raises(sg.NonFiniteError):
        LOOPS[name](counting, debug_nan=True)
    LOOPS[name](counting)
    assert seen.value > 0


def test_none_of_them_inside_a_trace(w):
    _, pullback = sg.vjp(root(w), 0.0, debug_nan=True)
    for program in (
        lambda x: sg.vjp(root(w), x, debug_nan=True)[0],
        lambda x: sg.linearize(root(w), x, debug_nan=True)[0],
        lambda x: sg.jvp(root(w), (x,), (x,), debug_nan=True),
        lambda x: sg.hvp(root(w), (x,), (x,), debug_nan=True),
        lambda x: sg.for_loop(diverge, x[None], debug_nan=True),
        pullback,
    ):
        with pytest.raises(sg.TraceError, match="pass debug_nan=True to the outermost transform"):
            sg.jit(program)(0.5)


def test_ahead_of_time_it_is_refused():
    with pytest.raises(sg.TraceError, match="is not watched; lower it without debug_nan"):
        sg.grad(diverge, debug_nan=True).lower(2.0)
    assert "sqrt" in str(sg.grad(diverge, debug_nan=True).trace(2.0).module)
