"""The known faults of the system whose API this is: here it is right, or a clear error.

Units have tests of their own in test_units, what is not finite in test_debug_nan, and changed closures of
compiled functions in test_guards.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg


def close(found, expected, rtol=1e-5):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-7)


def concrete(*states):
    return all(
        isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer)
        for s in states
        for x in jax.tree.leaves(s.value)
    )


# ------------------------------------------------------------------ 1: stale traces
def test_a_changed_flag_or_closure_is_seen_by_gradients():
    dropout, factor = True, 2.0
    w = sg.State(jnp.array(3.0), name="w")

    def loss(x):
        return (0.0 if dropout else 1.0) * w.value * x * factor

    gradient = sg.grad(loss, grad_states=w)
    assert gradient(1.0) == 0.0
    dropout = False
    assert gradient(1.0) == 2.0
    factor = 5.0
    assert gradient(1.0) == 5.0


def test_a_changed_module_flag_is_seen_by_gradients():
    class Layer(sg.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = sg.ParamState(jnp.array(3.0))
            self.training = True

        def __call__(self, x):
            return self.w.value * x * (0.0 if self.training else 1.0)

    layer = Layer()
    gradient = sg.grad(lambda x: layer(x), grad_states=layer.states())
    assert gradient(2.0)[("w",)] == 0.0
    layer.training = False
    assert gradient(2.0)[("w",)] == 2.0


def test_a_changed_closure_is_seen_through_transforms_of_transforms():
    factor = 2.0
    second = sg.grad(sg.grad(lambda x: factor * x**3))
    step = sg.jit(lambda x: second(x))
    assert step(1.0) == 12.0
    factor = 3.0
    assert step(1.0) == 18.0


# ------------------------------------------------------------------ 2: writes in raw control flow
def by_scan(f, x, times):
    return jax.lax.scan(lambda c, _: (f(c), None), x, length=times)[0]


def by_fori(f, x, times):
    return jax.lax.fori_loop(0, times, lambda _, c: f(c), x)


def by_cond(f, x, times):
    for _ in range(times):
        x = jax.lax.cond(x > -100.0, f, lambda c: c * 0.0, x)
    return x


def by_wrapper(wrapper, f, x, times):
    wrapped = wrapper(f)
    for _ in range(times):
        x = wrapped(x)
    return x


LOOPS = {
    "scan": by_scan,
    "fori_loop": by_fori,
    "cond": by_cond,
    "jit": functools.partial(by_wrapper, jax.jit),
    "checkpoint": functools.partial(by_wrapper, jax.checkpoint),
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_a_write_inside_raw_control_flow(loop):
    w, n = sg.State(0.5, name="w"), sg.State(0, name="n")

    def step(c):
        n.value += 1
        w.value = jnp.sin(w.value) + 0.1 * c
        return c * w.value

    def pure(w, x):
        for _ in range(3):
            w = jnp.sin(w) + 0.1 * x
            x = x * w
        return x, w

    found = sg.grad(lambda x: loop(step, x, 3), grad_states=w, argnums=0)(1.5)
    close(found, jax.grad(lambda w, x: pure(w, x)[0], (0, 1))(0.5, 1.5))
    np.testing.assert_allclose(w.value, pure(0.5, 1.5)[1], rtol=1e-6)
    assert n.value == 3 and concrete(w, n)


# ------------------------------------------------------------------ 3: a write that changes the structure
def test_a_write_that_changes_the_structure_works_in_straight_line_code():
    w, n = sg.State(jnp.array([1.0, 2.0]), name="w"), sg.State(0, name="n")

    def loss(x):
        n.value += 1
        w.value = {"w": w.value, "step": x}
        return jnp.sum(w.value["w"] ** 2) * x

    close(sg.grad(loss, grad_states=w)(3.0), jnp.array([6.0, 12.0]))
    close(w.value, {"w": jnp.array([1.0, 2.0]), "step": jnp.array(3.0)})
    assert n.value == 1 and concrete(w, n)


def test_a_write_that_changes_the_structure_in_a_loop_leaves_all_states_alone():
    w, n = sg.State(jnp.array(1.0), name="w"), sg.State(0, name="n")

    def body(_, x):
        n.value += 1
        w.value = (w.value, w.value)
        return x

    with pytest.raises(sg.StateError, match="'w' changes its type inside a loop"):
        sg.grad(lambda x: jax.lax.fori_loop(0, 2, body, x), grad_states=w)(1.0)
    assert concrete(w, n) and (w.value, n.value) == (1.0, 0)


# ------------------------------------------------------------------ 5: silently dropped or wrong
def test_a_third_element_of_aux_is_an_error():
    with pytest.raises(sg.GradientError, match=r"must return a pair \(value, aux\)"):
        sg.grad(lambda x: (x**2, 1.0, 2.0), has_aux=True)(1.0)


def test_aux_may_be_a_tuple_of_any_length():
    _, aux = sg.grad(lambda x: (x**2, (1.0, 2.0, x)), has_aux=True)(3.0)
    close(aux, (jnp.array(1.0), jnp.array(2.0), jnp.array(3.0)))


@pytest.mark.parametrize("name", ["grad", "vector_grad", "fwd_grad", "jacrev", "jacfwd", "hessian"])
def test_duplicate_argnums_are_an_error(name):
    with pytest.raises(sg.GradientError, match=r"twice"):
        getattr(sg, name)(lambda x, y: x * y, argnums=(0, -2))(1.0, 2.0)


@pytest.mark.parametrize("name", ["grad", "vector_grad", "fwd_grad", "jacrev", "jacfwd", "hessian"])
def test_a_write_only_state_is_an_error_unless_zeros_are_asked_for(name):
    s = sg.State(1.0, name="only_written")

    def loss(x):
        s.value = x
        return x * s.value

    with pytest.raises(sg.GradientError, match="'only_written', which loss writes before it reads it"):
        getattr(sg, name)(loss, grad_states=s)(2.0)
    zero = getattr(sg, name)(loss, grad_states=s, check_states=False)(2.0)
    close(zero, jnp.zeros(()))


# ------------------------------------------------------------------ 7: the gradient API
@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
def test_jacobians_of_pytree_outputs_by_states(name):
    w, tree = sg.State(jnp.array([1.0, 2.0]), name="w"), sg.State({"a": 2.0, "b": (jnp.ones(2),)}, name="t")

    def pure(w, tree):
        return {"y": w * tree["a"], "z": (jnp.sum(tree["b"][0] * w),)}

    found = getattr(sg, name)(lambda: pure(w.value, tree.value), grad_states=[w, tree])()
    expected = jax.jacrev(lambda s: pure(*s))([w.value, tree.value])
    close(found, expected)


def test_hessian_of_a_pytree_state():
    tree = sg.State({"a": jnp.array(2.0), "b": jnp.array([1.0, 3.0])}, name="tree")

    def pure(t, x=1.0):
        return x * jnp.sum(jnp.sin(t["a"] * t["b"]))

    close(sg.hessian(lambda: pure(tree.value), grad_states=tree)(), jax.hessian(pure)(tree.value), 1e-4)


def test_hessian_mixes_states_and_arguments():
    w = sg.State(jnp.array([1.0, 2.0]), name="w")

    def pure(w, x):
        return jnp.sum(jnp.sin(w * x) * x)

    x = jnp.array([0.3, -0.4])
    found = sg.hessian(lambda x: pure(w.value, x), grad_states=w, argnums=0)(x)
    close(found, jax.hessian(pure, (0, 1))(w.value, x), 1e-4)


@pytest.mark.parametrize("name", ["grad", "vector_grad", "jacrev", "jacfwd", "hessian"])
@pytest.mark.parametrize("argnums", [np.int64(1), -1, (np.int32(-2), 1), np.array(1)])
def test_numpy_and_negative_argnums(name, argnums):
    def f(x, y):
        return jnp.sin(x) * y**2

    theirs = jax.grad if name == "vector_grad" else getattr(jax, name)
    numbers = tuple(int(n) for n in argnums) if isinstance(argnums, tuple) else int(argnums)
    close(getattr(sg, name)(f, argnums=argnums)(0.3, 2.0), theirs(f, argnums=numbers)(0.3, 2.0))


@pytest.mark.parametrize("by_states", [False, True])
def test_argnums_out_of_range_are_reported_as_given(by_states):
    w = sg.State(1.0, name="w")
    gradient = sg.grad(lambda x: x * w.value, grad_states=w if by_states else None, argnums=3)
    with pytest.raises(sg.GradientError, match="argument 3 of lambda, which was called with 1 positional"):
        gradient(1.0)


def test_python_floats_are_differentiated_by_fwd_grad():
    found = sg.fwd_grad(lambda x: 3.0 * x, key=jax.random.key(0))(2.0)
    assert found.shape == () and found >= 0.0


def test_containers_with_keys_of_different_types():
    a, b = sg.State(2.0, name="a"), sg.State(3.0, name="b")
    mixed = {0: a, "b": b, ("c", 1): None}
    for name in ("grad", "jacrev", "jacfwd"):
        found = getattr(sg, name)(lambda: a.value**2 * b.value, grad_states=mixed)()
        assert found == {0: 12.0, "b": 4.0, ("c", 1): None}


def test_methods_can_be_decorated_and_have_static_arguments():
    class Model:
        def __init__(self):
            self.w = sg.State(jnp.array([1.0, 2.0]), name="w")

        @sg.grad(argnums=0, static_argnames="kind")
        def slope(self, x, kind):
            return jnp.sum(getattr(jnp, kind)(self.w.value * x))

        @sg.grad(argnums=[np.int64(0), -1])
        def slopes(self, x, y):
            return jnp.sum(self.w.value * x) * y

        @sg.grad(argnums=(0, 1))
        def slopes_of_both(self, x, y):
            return jnp.sum(self.w.value * x) * y

        @sg.jacrev
        def jacobian(self, x):
            return self.w.value * x

    one, two = Model(), Model()
    two.w.value = jnp.zeros(2)
    close(one.slope(0.0, kind="sin"), jnp.array(3.0))
    close(two.slope(0.0, "sin"), jnp.array(0.0))
    close(one.jacobian(5.0), jnp.array([1.0, 2.0]))
    close(one.slopes(5.0, 2.0), (jnp.array(6.0), jnp.array(15.0)))
    close(one.slopes_of_both(5.0, 2.0), (jnp.array(6.0), jnp.array(15.0)))


def test_jvp_has_tangents_of_states():
    w = sg.State(jnp.array([1.0, 2.0]), name="w")
    x = jnp.array([3.0, 4.0])
    value, tangent = sg.jvp(
        lambda x: jnp.sum(w.value * x),
        (x,),
        (jnp.ones(2),),
        grad_states=w,
        state_tangents=jnp.array([1.0, 0.0]),
    )
    assert (value, tangent) == (11.0, 3.0 + 3.0)


def test_what_was_missing_is_there():
    w = sg.State(2.0, name="w")

    def f(x):
        return w.value**2 * x**3

    close(sg.value_and_grad(f, grad_states=w)(3.0), (jnp.array(108.0), jnp.array(108.0)))
    close(sg.hvp(f, (3.0,), (1.0,)), jnp.array(72.0))
    value, push = sg.linearize(f, 3.0)
    close((value, push(2.0)), (jnp.array(108.0), jnp.array(216.0)))


# ------------------------------------------------------------------ 8: loops and custom rules
def test_loops_outside_of_a_trace_compile_once():
    total = sg.State(0.0, name="total")

    def run(xs, limit):
        def add(x):
            total.value += x

        sg.for_loop(add, xs)
        return sg.while_loop(lambda c: c < limit, lambda c: c * 2.0, 1.0)

    each = [jnp.full(3, i, jnp.float32) for i in range(3)]
    run(jnp.ones(3), 4.0)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    try:
        for xs in each:
            run(xs, 4.0)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [name for name in compiled if "backend_compile" in name]
    assert total.value == 3.0 + 9.0


def test_errors_of_loops_name_the_state():
    s = sg.State(jnp.zeros(2), name="grows")

    def body(x):
        s.value = jnp.concatenate([s.value, s.value])

    with pytest.raises(sg.StateError, match="'grows'"):
        sg.for_loop(body, jnp.arange(3.0))
    assert s.value.shape == (2,)


def test_a_custom_rule_may_read_a_state():
    s = sg.State(3.0, name="s")

    @jax.custom_vjp
    def f(x):
        return x * s.value

    f.defvjp(lambda x: (x * s.value, None), lambda _, ct: (10.0 * ct * s.value,))

    def loss(x):
        y = f(x)
        s.value = 100.0
        return y

    assert sg.grad(loss)(2.0) == 30.0, "the value when the forward function returned"
    assert s.value == 100.0
