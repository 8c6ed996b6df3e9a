"""Functions that read and write States, through raw JAX control flow: right gradients, right final states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

X = jnp.array([0.5, -1.0, 2.0])


def pure_scan(w: jax.Array, n: jax.Array, x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    total = jnp.zeros(())
    for i in range(3):
        n = n + 1
        w = jnp.tanh(w * x[i])
        total = total + w.sum()
    return total, (w, n)


def stateful_scan(w: sg.State, n: sg.State):
    def loss(x):
        def body(total, xi):
            n.value += 1
            w.value = jnp.tanh(w.value * xi)
            return total + w.value.sum(), None

        return jax.lax.scan(body, 0.0, x)[0]

    return loss


def stateful_fori(w: sg.State, n: sg.State):
    def loss(x):
        def body(i, total):
            n.value += 1
            w.value = jnp.tanh(w.value * x[i])
            return total + w.value.sum()

        return jax.lax.fori_loop(0, 3, body, 0.0)

    return loss


def stateful_jit(w: sg.State, n: sg.State):
    @jax.jit
    def step(xi):
        n.value += 1
        w.value = jnp.tanh(w.value * xi)
        return w.value.sum()

    return lambda x: sum(step(x[i]) for i in range(3))


def stateful_checkpoint(w: sg.State, n: sg.State):
    @jax.checkpoint
    def step(xi):
        n.value += 1
        w.value = jnp.tanh(w.value * xi)
        return w.value.sum()

    return lambda x: sum(step(x[i]) for i in range(3))


def stateful_scan_of_checkpoint(w: sg.State, n: sg.State):
    @jax.checkpoint
    def step(total, xi):
        n.value += 1
        w.value = jnp.tanh(w.value * xi)
        return total + w.value.sum(), None

    return lambda x: jax.lax.scan(step, 0.0, x)[0]


def stateful_cond(w: sg.State, n: sg.State):
    def advance(xi):
        n.value += 1
        w.value = jnp.tanh(w.value * xi)
        return w.value.sum()

    def never(xi):
        w.value = w.value * 0.0
        return xi

    def loss(x):
        return sum(jax.lax.cond(x[i] < 100.0, advance, never, x[i]) for i in range(3))

    return loss


WAYS = [
    stateful_scan,
    stateful_fori,
    stateful_jit,
    stateful_checkpoint,
    stateful_scan_of_checkpoint,
    stateful_cond,
]


@pytest.fixture
def states() -> tuple[sg.State, sg.State]:
    return sg.State(jnp.array([0.3, 1.2]), name="w"), sg.State(0, name="n")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("compiled", [False, True])
def test_state_in_raw_control_flow(way, compiled, states):
    w, n = states
    before = np.asarray(w.value), np.asarray(n.value)
    gradient = sg.grad(way(w, n), grad_states=w, argnums=0, return_value=True)
    call = sg.jit(gradient) if compiled else gradient
    (gw, gx), loss = call(X)
    expected, (w_end, n_end) = pure_scan(*before, X)
    expected_gw, expected_gx = jax.grad(lambda w, x: pure_scan(w, before[1], x)[0], (0, 1))(before[0], X)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(gw, expected_gw, rtol=1e-5)
    np.testing.assert_allclose(gx, expected_gx, rtol=1e-5)
    np.testing.assert_allclose(w.value, w_end, rtol=1e-6)
    assert n.value == n_end == 3
    assert isinstance(w.value, jax.Array) and not isinstance(w.value, jax.core.Tracer)


@pytest.mark.parametrize("way", WAYS)
def test_plain_jit_in_raw_control_flow(way, states):
    w, n = states
    before = w.value
    loss = sg.jit(way(w, n))(X)
    expected, (w_end, n_end) = pure_scan(before, 0, X)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(w.value, w_end, rtol=1e-6)
    assert n.value == n_end


def test_checkpoint_happens_once():
    s, y = sg.State(1.0, name="s"), 1.0

    @jax.checkpoint
    def f(y):
        out = jnp.sin(y * s.value)
        s.value += 1
        return out

    assert sg.grad(f)(y) == pytest.approx(0.5403, abs=1e-4)
    assert s.value == 2.0


def test_checkpoint_recomputes_with_the_version_it_read():
    s = sg.State(2.0, name="s")

    def f(y):
        out = jax.checkpoint(lambda y: jnp.sin(y * s.value))(y)
        s.value = 100.0
        return out * s.value

    assert sg.grad(f)(0.5) == pytest.approx(100.0 * 2.0 * np.cos(1.0), rel=1e-6)


def test_while_condition_sees_the_state_of_the_body():
    s, n = sg.State(1.0, name="s"), sg.State(0, name="n")

    @sg.jit
    def f():
        def body(_):
            s.value = s.value / 2
            n.value += 1
            return 0

        jax.lax.while_loop(lambda _: s.value > 0.1, body, 0)

    f()
    assert n.value == 4


def test_differentiation_is_by_the_value_on_entry():
    w = sg.State(3.0, name="w")

    def f():
        w.value = w.value**2
        return w.value * 5.0

    assert sg.grad(f, grad_states=w)() == pytest.approx(30.0)
    assert w.value == 9.0


def test_state_of_a_pytree_changes_only_what_is_written():
    s = sg.State({"a": jnp.ones(2), "b": (jnp.zeros(()), 3)}, name="s")

    @sg.jit
    def f(x):
        held = s.value
        s.value = {"a": held["a"] * x, "b": (held["b"][0] + 1, held["b"][1])}
        return held["a"].sum()

    f(2.0)
    assert jax.tree.map(float, {"b": s.value["b"]}) == {"b": (1.0, 3.0)}
    np.testing.assert_array_equal(s.value["a"], [2.0, 2.0])


def test_write_of_another_type_in_straight_line_code():
    s = sg.State(1, name="s")

    def f(x):
        s.value = s.value * x
        s.value = {"was": s.value, "now": jnp.stack([s.value, s.value])}
        return s.value["now"].sum()

    assert sg.grad(f)(3.0) == pytest.approx(2.0)
    assert set(s.value) == {"was", "now"}
    np.testing.assert_allclose(s.value["now"], [3.0, 3.0])


def test_state_created_inside_lives_in_the_program():
    made = []

    def f(x):
        local = sg.State(x, name="local")
        made.append(local)
        jax.lax.fori_loop(0, 3, lambda i, _: setattr(local, "value", local.value * x), None)
        return local.value

    assert sg.grad(f)(2.0) == pytest.approx(32.0)
    with pytest.raises(sg.StateError, match="'local'"):
        _ = made[-1].value
    made[-1].value = 1.0
    assert made[-1].value == 1.0


def test_gradient_inside_a_compiled_step():
    w, m = sg.ParamState(jnp.array([1.0, -2.0]), name="w"), sg.State(jnp.zeros(2), name="m")

    def loss(x):
        return jnp.sum((w.value * x) ** 2)

    @sg.jit
    def step(x):
        value, g = sg.value_and_grad(loss, grad_states=w)(x)
        m.value = 0.9 * m.value + g
        w.value = w.value - 0.1 * m.value
        return value

    pw, pm = w.value, m.value
    for i in range(4):
        x = jnp.array([1.0, 0.5]) * (i + 1)
        value, g = jax.value_and_grad(lambda w, x: jnp.sum((w * x) ** 2))(pw, x)
        pm = 0.9 * pm + g
        pw = pw - 0.1 * pm
        np.testing.assert_allclose(step(x), value, rtol=1e-6)
    np.testing.assert_allclose(w.value, pw, rtol=1e-5)
    np.testing.assert_allclose(m.value, pm, rtol=1e-5)


@pytest.mark.parametrize("order", [2, 3])
def test_higher_orders_through_a_state(order):
    s = sg.State(0.7, name="s")

    def f(x):
        s.value = jnp.sin(s.value * x)
        return s.value**2 * x

    def pure(x):
        return jnp.sin(0.7 * x) ** 2 * x

    ours, theirs = f, pure
    for _ in range(order):
        ours, theirs = sg.grad(ours), jax.grad(theirs)
    np.testing.assert_allclose(ours(0.4), theirs(0.4), rtol=1e-4)


def test_jax_transformations_around_ours():
    w = sg.State(jnp.array([1.0, 2.0]), name="w")

    def f(x):
        return jnp.sum(jnp.tanh(w.value * x) ** 2)

    def pure(x):
        return jnp.sum(jnp.tanh(jnp.array([1.0, 2.0]) * x) ** 2)

    xs = jnp.array([0.1, 0.5, 0.9])
    np.testing.assert_allclose(jax.vmap(sg.grad(f))(xs), jax.vmap(jax.grad(pure))(xs), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(sg.grad(f))(0.5), jax.grad(jax.grad(pure))(0.5), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(sg.jit(f))(0.5), jax.grad(pure)(0.5), rtol=1e-5)
    np.testing.assert_allclose(sg.jit(jax.vmap(sg.grad(f)))(xs), jax.vmap(jax.grad(pure))(xs), rtol=1e-5)


def test_under_disable_jit(states):
    w, n = states
    before = np.asarray(w.value)
    with jax.disable_jit():
        (gw, gx), _ = sg.grad(stateful_scan(w, n), grad_states=w, argnums=0, return_value=True)(X)
        sg.jit(stateful_scan(w, n))(X)
    expected_gw, expected_gx = jax.grad(lambda w, x: pure_scan(w, 0, x)[0], (0, 1))(before, X)
    np.testing.assert_allclose(gw, expected_gw, rtol=1e-5)
    np.testing.assert_allclose(gx, expected_gx, rtol=1e-5)
    assert n.value == 6


def test_a_state_shows_what_it_holds():
    state = sg.State({"a": jnp.ones(2), "b": [1, len]}, name="net")
    assert repr(state) == "State('net', float32[2], int32[] in {'a': *, 'b': [*, *]})"
    assert repr(sg.ParamState(1.0, name="w")) == "ParamState('w', float32[])"
