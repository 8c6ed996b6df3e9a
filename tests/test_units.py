"""Derivatives of and by quantities of saiunit: out-unit over in-unit, or an error; never a wrong unit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import saiunit as u

import stategrad as sg

V = jnp.array([1.0, 2.0])
T = jnp.array([3.0, 4.0])


@pytest.fixture
def w() -> sg.State:
    return sg.State(T * u.ms, name="w")


@pytest.fixture
def tree() -> sg.State:
    return sg.State({"g": 2.0 * u.siemens, "plain": jnp.array(3.0)}, name="tree")


def check(found, mantissa, unit=None):
    """A quantity of this unit, or a plain array."""
    assert isinstance(found, u.Quantity) == (unit is not None)
    np.testing.assert_allclose(found if unit is None else found.to_decimal(unit), mantissa, rtol=1e-5)


def product(w):
    return lambda x: (x * w.value).sum()


# ------------------------------------------------------------------ out-unit over in-unit
@pytest.mark.parametrize("transform", [sg.grad, sg.vector_grad])
def test_gradients_of_quantities(transform, w):
    check(transform(product(w), unit_aware=True)(V * u.mV), T, u.ms)
    check(transform(product(w), w, unit_aware=True)(V * u.mV), V, u.mV)
    states, (by_x,) = transform(product(w), {"w": w}, (0,), unit_aware=True)(V * u.mV)
    check(states["w"], V, u.mV)
    check(by_x, T, u.ms)


def test_value_and_aux_keep_their_units(w):
    (value, aux), by_w = sg.value_and_grad(
        lambda x: ((x * w.value).sum(), x), w, has_aux=True, unit_aware=True
    )(V * u.mV)
    check(value, 11.0, u.mV * u.ms)
    check(aux, V, u.mV)
    check(by_w, V, u.mV)


def test_plain_values_by_quantities_and_quantities_by_plain_values():
    check(sg.grad(lambda x: (x / u.mV).sum(), unit_aware=True)(V * u.mV), [1.0, 1.0], u.mV**-1)
    check(sg.grad(lambda x: x**2 * u.mV, unit_aware=True)(3.0), 6.0, u.mV)
    check(sg.grad(lambda x: x**2, unit_aware=True)(3.0), 6.0)


def test_dimensions_that_cancel_leave_a_plain_number_with_the_scale_in_it():
    check(sg.grad(lambda x: (x.to(u.mV) * 2.0).sum(), unit_aware=True)(V * u.volt), [2.0, 2.0])
    found = sg.grad(lambda x: x.mantissa * 5.0 * u.mV, unit_aware=True)(1.0 * u.volt)
    check(found, 5e-3)


def test_pytrees_of_quantities(tree):
    def f(x):
        return tree.value["g"] * x["v"] * tree.value["plain"] * x["n"]

    by_tree, by_x = sg.grad(f, tree, 0, unit_aware=True)({"v": 5.0 * u.volt, "n": jnp.array(7.0)})
    check(by_tree["g"], 105.0, u.volt)
    check(by_tree["plain"], 70.0, u.siemens * u.volt)
    check(by_x["v"], 42.0, u.siemens)
    check(by_x["n"], 30.0, u.siemens * u.volt)


def test_a_quantity_written_to_a_state(w):
    def f(x):
        w.value = w.value * 2.0
        return (x * w.value).sum()

    check(sg.grad(f, w, unit_aware=True)(V * u.mV), 2.0 * V, u.mV)
    check(w.value, 2.0 * T, u.ms)


@pytest.mark.parametrize("transform", [sg.jacrev, sg.jacfwd])
def test_jacobians_of_quantities(transform, w):
    by_w, by_x = transform(lambda x: x * w.value, w, 0, unit_aware=True)(V * u.mV)
    check(by_w, np.diag(V), u.mV)
    check(by_x, np.diag(T), u.ms)
    found = transform(lambda x: {"a": x**2, "b": (x / u.mV).sum()}, unit_aware=True)(V * u.mV)
    check(found["a"], np.diag(2 * V), u.mV)
    check(found["b"], np.ones(2), u.mV**-1)


def test_hessians_of_quantities(w):
    def f(x):
        return (x**2 * w.value).sum()

    (ww, wx), (xw, xx) = sg.hessian(f, w, 0, unit_aware=True)(V * u.mV)
    check(ww, np.zeros((2, 2)), u.mV**2 / u.ms)
    check(wx, np.diag(2 * V), u.mV)
    check(xw, np.diag(2 * V), u.mV)
    check(xx, np.diag(2 * T), u.ms)


def test_agrees_with_saiunit():
    def f(x, y):
        return {"p": x * y, "q": x**2 / (1.0 * u.ohm)}

    args = V * u.volt, T * u.mA
    for ours, theirs in [(sg.jacrev, u.autograd.jacrev), (sg.jacfwd, u.autograd.jacfwd)]:
        found, expected = (
            t(f, argnums=(0, 1), **k)(*args) for t, k in [(ours, {"unit_aware": True}), (theirs, {})]
        )
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6)


def test_inside_of_a_compiled_step(w):
    @sg.jit
    def step(x):
        by_w = sg.grad(product(w), w, unit_aware=True)(x)
        w.value = w.value - by_w * (0.1 * u.ms / u.mV)
        return by_w

    check(step(V * u.mV), V, u.mV)
    check(w.value, T - 0.1 * V, u.ms)


# ------------------------------------------------------------------ tangents and cotangents
def test_tangents_have_the_units_of_what_they_are_tangents_of(w):
    def f(x):
        return x**2 * w.value

    value, tangent = sg.jvp(f, (V * u.mV,), (V * u.mV,), state_tangents={w: T * u.ms})
    check(value, V**2 * T, u.mV**2 * u.ms)
    check(tangent, 3 * V**2 * T, u.mV**2 * u.ms)
    value, linear = sg.linearize(f, V * u.mV)
    check(linear(V * u.mV), 2 * V**2 * T, u.mV**2 * u.ms)
    for wrong in (V, V * u.volt):
        with pytest.raises(sg.GradientError, match="the tangent of argument 0 of f has the structure"):
            sg.jvp(f, (V * u.mV,), (wrong,))


def test_cotangents_may_have_any_unit(w):
    value, pullback = sg.vjp(lambda x: x**2 * w.value, V * u.mV, grad_states=w, unit_aware=True)
    check(value, V**2 * T, u.mV**2 * u.ms)
    for cotangent, unit in [(jnp.ones(2), None), (jnp.ones(2) * u.volt, u.volt), (None, None)]:
        by_w, by_x = pullback(cotangent)
        factor = 0.0 if cotangent is None else 1.0
        check(by_w, factor * V**2, u.mV**2 * unit if unit else u.mV**2)
        check(by_x, factor * 2 * V * T, u.mV * u.ms * unit if unit else u.mV * u.ms)


def test_cotangents_of_several_results_must_fit_together():
    _, pullback = sg.vjp(lambda x: (x, x**2), V * u.mV, unit_aware=True)
    check(pullback((V * u.mV, V)), V + 2 * V * V, u.mV)
    check(pullback((V, None)), V)
    with pytest.raises(sg.GradientError, match=r"have the units mV, mV\^2 .*cannot be summed"):
        pullback((V, V))


def test_products_with_hessians(w):
    def f(x):
        return (x**2 * w.value).sum()

    by_w, by_x = sg.hvp(f, (V * u.mV,), (V * u.mV,), grad_states=w, argnums=0, unit_aware=True)
    check(by_w, 2 * V**2, u.mV**2)
    check(by_x, 2 * V * T, u.mV * u.ms)
    for product in (sg.hvp, lambda f, primals, tangents: sg.vjp(f, *primals)):
        with pytest.raises(sg.GradientError, match="argument 0 of f has the unit mV: pass unit_aware=True"):
            product(f, (V * u.mV,), (V * u.mV,))


def test_estimates():
    found = sg.fwd_grad(lambda x: x**2, unit_aware=True, key=0)(3.0 * u.mV)
    assert isinstance(found, u.Quantity) and found.unit == u.mV


# ------------------------------------------------------------------ GradientTransform
def scaled(fun, *, argnums, has_aux):
    base = jax.grad(fun, argnums=argnums, has_aux=True)

    def wrapped(*args):
        grads, aux = base(*args)
        assert not any(
            isinstance(x, u.Quantity) for x in jax.tree.leaves(grads, is_leaf=lambda x: x is not grads)
        )
        return jax.tree.map(lambda g: 2.0 * g, grads), aux

    return wrapped


@pytest.mark.parametrize("transform", [jax.grad, scaled])
def test_custom_transforms_see_mantissas(transform, w):
    made = sg.GradientTransform(product(w), transform, {"w": w}, 0, return_value=True, unit_aware=True)
    (states, by_x), value = made(V * u.mV)
    factor = 2.0 if transform is scaled else 1.0
    check(states["w"], factor * V, u.mV)
    check(by_x, factor * T, u.ms)
    check(value, 11.0, u.mV * u.ms)


def test_transforms_of_saiunit_see_quantities(w):
    by_w, by_x = sg.GradientTransform(product(w), u.autograd.grad, w, 0)(V * u.mV)
    check(by_w, V, u.mV)
    check(by_x, T, u.ms)


def test_transforms_whose_units_are_unknown_are_refused(w):
    made = sg.GradientTransform(product(w), jax.hessian, w, unit_aware=True)
    with pytest.raises(sg.GradientError, match="units are unknown"):
        made(V * u.mV)


# ------------------------------------------------------------------ without unit_aware
TRANSFORMS = {
    name: getattr(sg, name)
    for name in (
        "grad",
        "value_and_grad",
        "vector_grad",
        "fwd_grad",
        "jacrev",
        "jacfwd",
        "jacobian",
        "hessian",
    )
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_units_need_unit_aware(transform, w, tree):
    f = product(w)
    with pytest.raises(sg.GradientError, match="argument 0 of lambda has the unit mV: pass unit_aware=True"):
        transform(f)(V * u.mV)
    with pytest.raises(sg.GradientError, match="the State 'w' has the unit ms: pass unit_aware=True"):
        transform(f, w)(V * u.mV)
    with pytest.raises(sg.GradientError, match="the State 'tree' has the unit S: pass unit_aware=True"):
        transform(lambda: tree.value["g"].mantissa, tree)()
    with pytest.raises(sg.GradientError, match="what lambda returns has the unit mV: pass unit_aware=True"):
        transform(lambda x: x * u.mV)(1.0)


def test_quantities_that_nothing_is_differentiated_by_are_no_matter(w):
    found = sg.grad(lambda x, q: (x * q.mantissa * w.value.mantissa).sum())(V, T * u.mV)
    check(found, T * T)


def test_values_of_different_units_have_no_sum():
    with pytest.raises(sg.GradientError, match=r"units mV, mV\^2, which cannot be summed; use jacrev"):
        sg.vector_grad(lambda x: (x, x**2), unit_aware=True)(V * u.mV)
