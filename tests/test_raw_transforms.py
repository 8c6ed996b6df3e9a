"""JAX's own transforms and loops inside traced functions: right, or an error that says what to write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import stategrad as sg


@pytest.fixture
def state():
    return sg.State(jnp.array(2.0), "state")


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# ------------------------------------------------------------------ writes that jax.grad differentiates
OPERATORS = {
    "times": lambda x: x * 3,
    "sin": jnp.sin,
    "where": lambda x: jnp.where(x > 0, x, 0 * x),
    "clip": lambda x: jnp.clip(x, -50, 50),
    "relu": jax.nn.relu,
    "gelu": jax.nn.gelu,
    "var": lambda x: jnp.var(jnp.stack([x, 2 * x])),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_jax_grad_goes_through_a_write(state, name):
    operator = OPERATORS[name]

    def through_state(x):
        state.value = operator(x)
        return operator(state.value * 3)

    def pure(x):
        return operator(operator(x) * 3)

    close(sg.jit(jax.grad(through_state))(3.0), jax.grad(pure)(3.0))
    close(state.value, operator(3.0))
    close(sg.jit(lambda x: jax.jvp(through_state, (x,), (1.0,)))(3.0), jax.jvp(pure, (3.0,), (1.0,)))
    close(sg.jit(jax.grad(jax.grad(through_state)))(3.0), jax.grad(jax.grad(pure))(3.0))


def test_a_nested_jit_reads_what_jax_grad_differentiates(state):
    @jax.jit
    def inner(x):
        return jnp.where(x > 0, state.value * x, 0)

    def through_state(x):
        state.value = x * x
        return inner(x) + jax.nn.relu(state.value)

    close(sg.jit(jax.grad(through_state))(3.0), 3 * 3.0**2 + 2 * 3.0)


def test_a_custom_rule_that_reads_what_jax_grad_differentiates_is_an_error(state):
    @jax.custom_jvp
    def function(x):
        return x * state.value

    function.defjvp(lambda primals, tangents: (function(*primals), tangents[0]))

    def through_state(x):
        state.value = x * x
        return function(x)

    with pytest.raises(sg.StateError, match=r"'state'.*inside a custom rule.*use stategrad.grad"):
        sg.jit(jax.grad(through_state))(3.0)
    close(state.value, 2.0)


# ------------------------------------------------------------------ backward rules
def scaled(state, read=None):
    """The identity; its backward rule multiplies by the state."""
    function = jax.custom_vjp(lambda x: x)
    read = read or (lambda: state.value)
    function.defvjp(lambda x: (x, None), lambda _, ct: (ct * read(),))
    return function


def by_grad(function, between):
    def loss(x):
        y = function(x)
        between()
        return y

    return jax.grad(loss)


def by_vjp(function, between):
    def gradient(x):
        _, pull = jax.vjp(function, x)
        between()
        return pull(jnp.ones(()))[0]

    return gradient


def in_scan(state):
    return lax.scan(lambda c, _: (c + state.value, None), jnp.zeros(()), length=1)[0]


@pytest.mark.parametrize("read", [None, in_scan, lambda state: jax.jit(lambda: state.value)()])
@pytest.mark.parametrize("gradient", [by_grad, by_vjp])
def test_a_backward_rule_under_jax_grad_never_sees_a_later_value(state, gradient, read):
    def overwrite():
        state.value = jnp.array(10.0)

    function = scaled(state, read and (lambda: read(state)))
    close(sg.jit(gradient(function, lambda: None))(3.0), 2.0)
    with pytest.raises(sg.StateError, match=r"'state'.*backward.*test_raw_transforms.py.*use stategrad.grad"):
        sg.jit(gradient(function, overwrite))(3.0)
    close(state.value, 2.0)


def test_a_backward_rule_may_read_a_state_of_the_trace():
    def gradient(x):
        inside = sg.State((jnp.array(2.0), jnp.array(5.0)), "inside")
        return jax.grad(scaled(inside, lambda: inside.value[1]))(x)

    close(sg.jit(gradient)(3.0), 5.0)


# ------------------------------------------------------------------ jax.disable_jit
@pytest.mark.parametrize("loop", [lax.while_loop, sg.while_loop])
def test_a_condition_that_writes_counts_the_same_under_disable_jit(loop):
    count = sg.State(0, "count")

    def going(i):
        count.value += 1
        return i < 3

    run = sg.jit(lambda: loop(going, lambda i: i + 1, 0))
    with jax.disable_jit():
        assert run() == 3
    assert count.value == 4


# ------------------------------------------------------------------ States that end with a loop or a branch
def created_in_branch(x, box):
    return lax.cond(x > 0, lambda: box.append(sg.State(x, "inside")) or x, lambda: x)


def created_in_loop(x, box):
    return lax.scan(lambda c, _: (box.append(sg.State(c, "inside")) or c, None), x, length=0)[0]


def created_in_condition(x, box):
    return lax.while_loop(lambda c: bool(box.append(sg.State(c, "inside"))) or c < 3, lambda c: c + 1, x)


def created_in_jit(x, box):
    return jax.jit(lambda x: box.append(sg.State(x, "inside")) or x)(x)


@pytest.mark.parametrize(
    "create",
    [created_in_branch, created_in_loop, created_in_condition, created_in_jit],
    ids=lambda c: c.__name__,
)
@pytest.mark.parametrize(
    "use", [lambda s: s.value, lambda s: setattr(s, "value", 1.0)], ids=["read", "write"]
)
def test_a_state_of_a_loop_or_branch_is_gone_with_it(create, use):
    def f(x):
        box = []
        y = create(x, box)
        use(box[0])
        return y

    with pytest.raises(sg.StateError, match=r"'inside'.*gone with it.*test_raw_transforms.py.*outside"):
        sg.jit(f)(-2.0)


def test_a_state_of_a_loop_serves_inside_of_it():
    def step(c, _):
        inside = sg.State(c, "inside")
        lax.cond(c > 0, lambda: setattr(inside, "value", inside.value * 3), lambda: None)
        return lax.fori_loop(0, 2, lambda i, c: c + inside.value, c), None

    close(sg.grad(lambda x: lax.scan(step, x, length=2)[0], argnums=0)(1.0), 49.0)


# ------------------------------------------------------------------ JAX's own errors
def test_errors_of_jax_name_the_users_function_and_argument():
    def chosen(gate):
        return 1.0 if gate["open"] else 2.0

    for transform in (sg.jit, sg.grad):
        with pytest.raises(jax.errors.TracerBoolConversionError) as raised:
            transform(chosen)({"open": 1.0})
        assert "chosen at " in str(raised.value) and "test_raw_transforms.py" in str(raised.value)
        assert "gate['open']" in str(raised.value)
