"""Gradients of jnp code that nobody here chose, against `jax.grad` of the same code without States."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import stategrad as sg

X = jnp.linspace(-2.0, 2.5, 12).reshape(3, 4)

ACTIVATIONS = """
    relu relu6 sigmoid softplus sparse_plus soft_sign silu log_sigmoid leaky_relu hard_sigmoid hard_silu
    hard_tanh elu celu selu gelu glu squareplus mish softmax log_softmax standardize
""".split()

FUNCTIONS = {
    **{name: getattr(jax.nn, name) for name in ACTIVATIONS},
    "norm": jnp.linalg.norm,
    "norm of rows": lambda x: jnp.linalg.norm(x, axis=1),
    "logsumexp": jax.scipy.special.logsumexp,
    "logsumexp of rows": lambda x: jax.scipy.special.logsumexp(x, axis=1, b=jnp.arange(1.0, 5.0)),
    "conv": lambda x: jax.lax.conv_general_dilated(
        x.reshape(1, 1, 3, 4), jnp.arange(8.0).reshape(2, 1, 2, 2), (1, 2), "SAME", rhs_dilation=(1, 2)
    ),
    "sort": lambda x: jnp.sort(x, axis=0) * jnp.arange(4.0),
    "top_k": lambda x: jax.lax.top_k(x, 2)[0],
    "cumprod": lambda x: jnp.cumprod(x, axis=1),
    "cumsum": lambda x: jnp.cumsum(x, axis=0),
    "var": lambda x: jnp.var(x, axis=1),
    "median": lambda x: jnp.median(x, axis=1),
    "einsum": lambda x: jnp.einsum("ij,kj->ik", x, x),
    "take": lambda x: x[jnp.array([2, 0, 0]), 1:],
    "at add": lambda x: x.at[jnp.array([0, 0, 2])].add(x[::-1] ** 2),
    "solve": lambda x: jnp.linalg.solve(x @ x.T + 3 * jnp.eye(3), x),
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.T + 3 * jnp.eye(3)),
    "logdet": lambda x: jnp.linalg.slogdet(x @ x.T + 3 * jnp.eye(3))[1],
    "eigh": lambda x: jnp.linalg.eigh(x @ x.T + jnp.diag(jnp.arange(3.0)))[0],
    "fft": lambda x: jnp.abs(jnp.fft.fft(x)) ** 2,
    "max pool": lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2), (1, 1), "VALID"),
    "associative_scan": lambda x: jax.lax.associative_scan(jnp.multiply, x, axis=1),
    "interp": lambda x: jnp.interp(x, jnp.array([-2.0, 0.0, 3.0]), jnp.array([1.0, -1.0, 2.0])),
    "digamma": lambda x: jax.scipy.special.digamma(x + 4.0),
    "betainc": lambda x: jax.scipy.special.betainc(2.0, 3.0, jax.nn.sigmoid(x)),
    "map": lambda x: jax.lax.map(lambda r: jnp.tanh(r) * r.sum(), x),
    "odeint": lambda x: jax.lax.fori_loop(0, 5, lambda i, y: y + 0.1 * jnp.sin(y), x),
    "logical": lambda x: jnp.where((x > 0) & (x < 1), x**3, -x),
    "attention": lambda x: jax.nn.dot_product_attention(*(x.reshape(1, 3, 1, 4),) * 3),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_of_library_code(name):
    function, held = FUNCTIONS[name], sg.State(X, name="held")

    def weigh(y):
        return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

    ours = sg.grad(lambda: weigh(function(held.value)), grad_states=held, return_value=True)()
    theirs = jax.value_and_grad(lambda x: weigh(function(x)))(X)
    np.testing.assert_allclose(ours[1], theirs[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours[0], theirs[1], rtol=1e-4, atol=1e-5)


def test_custom_rules_are_used():
    @jax.custom_vjp
    def clipped(x):
        return x**2

    clipped.defvjp(lambda x: (x**2, x), lambda x, ct: (jnp.clip(2 * x * ct, -1.0, 1.0),))

    @jax.custom_jvp
    def loud(x):
        return jnp.sin(x)

    loud.defjvp(lambda p, t: (jnp.sin(p[0]), 100.0 * t[0]))
    assert sg.grad(lambda x: clipped(x) + loud(x))(3.0) == pytest.approx(101.0)
    assert sg.grad(sg.grad(lambda x: loud(x) * x))(3.0) == pytest.approx(
        jax.grad(jax.grad(lambda x: loud(x) * x))(3.0)
    )


def test_optax_update_inside_a_compiled_step():
    w = sg.ParamState({"a": jnp.ones((2, 3)), "b": jnp.zeros(3)}, name="w")
    optimiser = optax.adam(1e-2)
    opt = sg.State(optimiser.init(w.value), name="opt")
    x = jnp.array([[1.0, -1.0], [0.5, 2.0]])

    def pure(w, x):
        return jnp.mean((jnp.tanh(x @ w["a"] + w["b"]) - 0.3) ** 2)

    @sg.jit
    def step(x):
        gradient, loss = sg.grad(lambda: pure(w.value, x), grad_states=w, return_value=True)()
        updates, opt.value = optimiser.update(gradient, opt.value, w.value)
        w.value = optax.apply_updates(w.value, updates)
        return loss

    pw, popt = w.value, opt.value
    for _ in range(5):
        loss, gradient = jax.value_and_grad(pure)(pw, x)
        updates, popt = optimiser.update(gradient, popt, pw)
        pw = optax.apply_updates(pw, updates)
        np.testing.assert_allclose(step(x), loss, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), w.value, pw)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), opt.value, popt)


def test_equinox_mlp_in_one_state():
    mlp = eqx.nn.MLP(3, 2, 8, 2, key=jax.random.key(0))
    model = sg.ParamState(mlp, name="model")
    x = jnp.array([0.1, -0.7, 2.0])
    gradient = sg.grad(lambda x: jnp.sum(model.value(x) ** 2), grad_states=model)(x)
    expected = eqx.filter_grad(lambda m, x: jnp.sum(m(x) ** 2))(mlp, x)
    ours, theirs = (jax.tree.leaves(eqx.filter(g, eqx.is_array)) for g in (gradient, expected))
    assert len(ours) == len(theirs) == 6
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_typed_keys_in_a_state():
    key = sg.State(jax.random.key(3), name="key")

    @sg.jit
    def draw():
        def body(_, i):
            key.value, sub = jax.random.split(key.value)
            return None, jax.random.normal(sub, (2,))

        return jax.lax.scan(body, None, None, length=3)[1]

    k, expected = jax.random.key(3), []
    for _ in range(3):
        k, sub = jax.random.split(k)
        expected.append(jax.random.normal(sub, (2,)))
    np.testing.assert_allclose(draw(), np.stack(expected), rtol=1e-6)
    assert jnp.all(jax.random.key_data(key.value) == jax.random.key_data(k))
