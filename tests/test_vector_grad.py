"""vector_grad and fwd_grad: pullbacks of ones, and estimates from random directions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg


def close(found, expected, rtol=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6), found, expected)


# ------------------------------------------------------------------------------------------------ vector_grad
def test_the_examples_of_seeds():
    gradient = sg.vector_grad(lambda x: jnp.array([x[0] * x[1], jnp.sin(x[0]), x[0] ** 2 + x[1] ** 2]))
    close(gradient(jnp.array([1.0, 2.0])), jnp.array([4.5403023, 5.0]))
    gradient = sg.vector_grad(lambda x: jnp.array([x[0] ** 2, x[1] ** 3, x[0] * x[1]]))
    close(gradient(jnp.array([2.0, 3.0])), jnp.array([7.0, 29.0]))
    params = sg.State(jnp.array([1.0, 2.0]))

    def model(x):
        return jnp.array([x * params.value[0], x**2 * params.value[1]])

    close(sg.vector_grad(model, grad_states=[params])(3.0), [jnp.array([3.0, 9.0])])


def test_elementwise_derivatives_of_pytrees():
    x = {"a": jnp.linspace(-1.0, 1.0, 5), "b": (jnp.asarray(0.5), 2.0)}
    gradient = sg.vector_grad(lambda x: jax.tree.map(jnp.tanh, x))
    close(gradient(x), jax.tree.map(lambda a: 1 - jnp.tanh(a) ** 2, x))


def outcomes(by_states, by_args, value, aux):
    """The table of results: `(by_states, by_args)` is what the derivatives are put together to."""
    by = by_states if by_args is None else by_args if by_states is None else (by_states, by_args)
    return {
        (False, False): by,
        (True, False): (by, aux),
        (False, True): (by, value),
        (True, True): (by, value, aux),
    }


@pytest.mark.parametrize("has_aux", [False, True])
@pytest.mark.parametrize("return_value", [False, True])
@pytest.mark.parametrize("by", ["arguments", "states", "both"])
def test_what_is_returned(has_aux, return_value, by):
    w, count = sg.State(jnp.array([1.0, 2.0]), name="w"), sg.State(0, name="count")
    x = jnp.array([3.0, 4.0])

    def f(x, *, scale):
        count.value += 1
        value = w.value * x**2 * scale
        return (value, {"n": count.value}) if has_aux else value

    states, argnums = {"arguments": (None, None), "states": ({"w": w}, None), "both": ({"w": w}, [-1])}[by]
    gradient = sg.vector_grad(
        f, grad_states=states, argnums=argnums, has_aux=has_aux, return_value=return_value
    )
    by_states = None if by == "arguments" else {"w": 2 * x**2}
    by_x = 4 * jnp.array([1.0, 2.0]) * x
    by_args = {"arguments": by_x, "states": None, "both": (by_x,)}[by]
    expected = outcomes(by_states, by_args, 2 * jnp.array([1.0, 2.0]) * x**2, {"n": jnp.asarray(1)})
    close(gradient(x, scale=2.0), expected[has_aux, return_value])
    assert count.value == 1


def test_vector_grad_through_a_scan_and_a_written_state():
    w = sg.State(jnp.array([0.5, -0.2]), name="w")

    @sg.vector_grad(grad_states=w, argnums=0, return_value=True)
    def run(x):
        def step(_, xi):
            w.value = jnp.sin(w.value * xi)
            return None, w.value

        return jax.lax.scan(step, None, x)[1], w.value

    def pure(w, x):
        out = []
        for i in range(3):
            w = jnp.sin(w * x[i])
            out.append(w)
        return jnp.stack(out), w

    x = jnp.array([1.0, 2.0, -0.5])
    value, back = jax.vjp(pure, w.value, x)
    close(run(x), (back(jax.tree.map(jnp.ones_like, value)), value))
    close(w.value, value[1])


def test_vector_grad_of_methods_with_static_arguments_inside_of_transforms():
    class Power:
        def __init__(self):
            self.scale = sg.State(2.0)

        @sg.vector_grad(argnums=0, static_argnums=1)
        def slope(self, x, n):
            return self.scale.value * x**n

    power, xs = Power(), jnp.array([1.0, 2.0])
    expected = 6 * xs**2
    close(power.slope(xs, 3), expected)
    for transformed in (sg.jit(lambda x: power.slope(x, 3)), jax.vmap(lambda x: power.slope(x, 3))):
        close(transformed(xs), expected)
    close(jax.grad(lambda x: power.slope(x, 3).sum())(xs), 12 * xs)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: {"y": x, "n": jnp.arange(2)}, r"result\['n'\] of lambda is i32\[2\].*has_aux=True"),
        (lambda x: x * 1j, r"result of lambda is c64\[\]"),
        (lambda x: None, "which returns no array"),
    ],
)
def test_results_that_are_not_real(f, message):
    with pytest.raises(sg.GradientError, match=message):
        sg.vector_grad(f)(1.0)


# ------------------------------------------------------------------------------------------------ fwd_grad
def quadratic(x):
    return jnp.sum(x**2)


def test_fwd_grad_is_the_direction_times_the_derivative_in_it():
    x = jnp.array([1.0, 2.0, 3.0])
    v = sg.fwd_grad(lambda x: x[0], key=3)(x)  # <e0, v> v
    direction = v / jnp.sqrt(v[0])
    expected = jnp.vdot(2 * x, direction) * direction
    close(sg.fwd_grad(quadratic, key=3)(x), expected)
    close(sg.fwd_grad(quadratic, key=jax.random.key(3))(x), expected)
    slope = jnp.clip(jnp.vdot(2 * x, direction), -0.25, 0.25)
    close(sg.fwd_grad(quadratic, key=3, drct_der_clip=0.25)(x), slope * direction)


def test_the_mean_of_many_directions_is_the_gradient():
    w, count = sg.State(jnp.array([1.0, -2.0]), name="w"), sg.State(0, name="count")

    def f(x, n):
        count.value += 1
        return jnp.sum(w.value * x["a"]) * n, count.value

    found = sg.fwd_grad(
        f,
        grad_states={"w": w},
        argnums=(0,),
        has_aux=True,
        return_value=True,
        tangent_size=20_000,
        static_argnums=1,
        key=0,
    )({"a": 3.0}, 2)
    ((by_w, by_x), value, aux) = found
    np.testing.assert_allclose(by_w["w"], [6.0, 6.0], atol=0.5)
    np.testing.assert_allclose(by_x[0]["a"], -2.0, atol=0.5)
    assert (value, aux, count.value) == (-6.0, 1, 1)


def test_fwd_grad_draws_from_the_default_random_state():
    gradient = sg.fwd_grad(quadratic)
    sg.random.seed(7)
    first, second = gradient(2.0), gradient(2.0)
    assert first != second and isinstance(first, jax.Array)
    sg.random.seed(7)
    close(gradient(2.0), first)
    sg.random.seed(7)
    compiled = sg.jit(gradient)
    close((compiled(2.0), compiled(2.0)), (first, second))


def test_fwd_grad_inside_of_transforms_and_on_methods():
    gradient = sg.fwd_grad(lambda x: x**3, key=1)
    factor = gradient(1.0) / 3
    xs = jnp.array([1.0, 2.0])
    close(jax.vmap(gradient)(xs), factor * 3 * xs**2)
    close(jax.jit(gradient)(2.0), factor * 12)
    close(jax.grad(gradient)(2.0), factor * 12)

    class Model:
        scale = 3.0

        @sg.fwd_grad(argnums=0, key=1, tangent_size=1)
        def loss(self, x):
            return self.scale * x**3

    close(Model().loss(2.0), 3 * factor * 12)


def test_fwd_grad_of_what_has_none():
    for size in (0, -1, "many"):
        with pytest.raises(sg.GradientError, match=f"tangent_size of fwd_grad.*is {size!r}"):
            sg.fwd_grad(quadratic, tangent_size=size)
    with pytest.raises(sg.GradientError, match=r"must be a scalar, not f32\[2\]"):
        sg.fwd_grad(lambda x: x)(jnp.ones(2))
    with pytest.raises(sg.GradientError, match="names an argument twice"):
        sg.fwd_grad(lambda x, y: x * y, argnums=(0, 0))(1.0, 2.0)
