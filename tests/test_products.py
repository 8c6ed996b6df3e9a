"""vjp, jvp, linearize and hvp of functions with States, against JAX on equivalent pure functions."""

import threading
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.transform.point import _pure
from tests.recurrent import CT, DW, DX, W, X, close, pure, stateful


@pytest.fixture
def w():
    return sg.ParamState(W, name="w")


@pytest.fixture
def recurrent(w):
    return stateful(w)


# ------------------------------------------------------------------------------------- the examples of seeds
def test_vjp_of_a_pure_function():
    x = jnp.array([1.0, 2.0, 3.0])
    out, vjp_fn = sg.vjp(lambda x: jnp.sum(x**2), x)
    assert out == 14.0
    close(vjp_fn(1.0), jnp.array([2.0, 4.0, 6.0]))


def test_vjp_by_a_state_and_an_argument():
    w = sg.State(jnp.array([2.0, 3.0]))
    out, vjp_fn = sg.vjp(lambda x: jnp.sum(w.value * x), jnp.array([5.0, 7.0]), grad_states=w)
    assert out == 31.0
    close(vjp_fn(1.0), (jnp.array([5.0, 7.0]), jnp.array([2.0, 3.0])))


def test_vjp_by_states_only():
    weight = sg.State(jnp.array([[1.0, 2.0], [3.0, 4.0]]))
    bias = sg.State(jnp.array([0.0, 0.0]))
    x = jnp.array([1.0, 1.0])

    def predict_loss():
        y = x @ weight.value + bias.value
        return jnp.sum(y**2)

    out, vjp_fn = sg.vjp(predict_loss, grad_states=[weight, bias])
    assert out == 52.0
    close(vjp_fn(1.0), [jnp.array([[8.0, 12.0], [8.0, 12.0]]), jnp.array([8.0, 12.0])])


def test_vjp_with_aux_and_a_written_state():
    counter = sg.State(jnp.array(0.0))

    def f(x):
        counter.value = counter.value + 1.0
        return jnp.sum(x**2), {"mean": jnp.mean(x)}

    _, vjp_fn, aux = sg.vjp(f, jnp.array([1.0, 2.0]), has_aux=True)
    assert aux["mean"] == 1.5
    close(vjp_fn(1.0), jnp.array([2.0, 4.0]))
    assert counter.value == 1.0


def test_vjp_under_vmap_is_the_jacobian():
    _, vjp_fn = sg.vjp(lambda x: jnp.array([jnp.sum(x), jnp.sum(x**2)]), jnp.array([1.0, 2.0, 3.0]))
    close(jax.vmap(vjp_fn)(jnp.eye(2)), jnp.array([[1.0, 1.0, 1.0], [2.0, 4.0, 6.0]]))


def test_vjp_by_several_arguments():
    x, y = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
    _, vjp_fn = sg.vjp(lambda x, y: jnp.sum(x * y), x, y, argnums=(0, 1))
    close(vjp_fn(1.0), (y, x))


# ------------------------------------------------------------------------------------------------ vjp
@pytest.mark.parametrize(
    ("states", "argnums", "expected"),
    [
        (False, 0, lambda by_w, by_x: by_x),
        (False, [0], lambda by_w, by_x: (by_x,)),
        (False, -1, lambda by_w, by_x: by_x),
        (False, np.int64(0), lambda by_w, by_x: by_x),
        (True, 0, lambda by_w, by_x: (by_w, by_x)),
        (True, (np.int32(0),), lambda by_w, by_x: (by_w, (by_x,))),
        (True, None, lambda by_w, by_x: by_w),
    ],
)
def test_what_the_pullback_returns(recurrent, w, states, argnums, expected):
    (out, end), back = jax.vjp(pure, X, W)
    by_x, by_w = back((CT, jnp.zeros(2)))
    found, pullback = sg.vjp(recurrent, X, grad_states=w if states else None, argnums=argnums)
    close(found, out)
    close(w.value, end)
    close(pullback(CT), expected(by_w, by_x))
    close(pullback(CT), expected(by_w, by_x))
    close(w.value, end)


def test_vjp_through_the_state_in_and_out(recurrent, w):
    _, back = jax.vjp(pure, X, W)
    _, pullback = sg.vjp(recurrent, X, grad_states={"w": w}, final_states=[w])
    for ct, end in [(CT, jnp.array([0.1, 0.2])), (None, DW), (CT, None)]:
        by_x, by_w = back(
            (CT if ct else jax.tree.map(jnp.zeros_like, CT), jnp.zeros(2) if end is None else end)
        )
        close(pullback(ct, state_cts=None if end is None else [end]), ({"w": by_w}, by_x))


def test_final_states_that_are_only_read_untouched_or_of_another_type(w):
    untouched, typed = sg.State({"a": 2.0, "b": jnp.ones(2)}, name="untouched"), sg.State(1.0, name="typed")

    def f(x):
        typed.value = jnp.stack([typed.value * x, x])
        return jnp.sum(w.value * x)

    _, pullback = sg.vjp(
        f, 3.0, grad_states=(w, untouched, typed), final_states=(w, untouched, typed), check_states=False
    )
    (by_w, by_untouched, by_typed), by_x = pullback(
        1.0, (jnp.array([10.0, 20.0]), {"a": 5.0, "b": None}, jnp.array([1.0, 100.0]))
    )
    close(by_w, jnp.array([13.0, 23.0]))
    close(by_untouched, {"a": jnp.asarray(5.0), "b": jnp.zeros(2)})
    close(by_typed, jnp.asarray(3.0))
    close(by_x, jnp.asarray(1.5 + 1.0 + 100.0))
    close(typed.value, jnp.array([3.0, 3.0]))


def test_pytrees_kwargs_methods_and_static_arguments():
    class Model:
        def __init__(self):
            self.scale = sg.State({"a": jnp.array([1.0, 2.0]), "name": "scale"})

        def apply(self, params, *, shift, mode):
            assert isinstance(mode, str)
            held = self.scale.value
            return (held["a"] * params["x"] + params["pair"][0] + shift, params["pair"][1] * 2)

    model = Model()
    params = {"x": jnp.array([3.0, 4.0]), "pair": (0.5, jnp.array([1.0, 1.0]))}
    out, pullback = sg.vjp(
        model.apply, params, grad_states=model.scale, shift=1.0, mode="on", static_argnames="mode"
    )
    ct = (jnp.array([1.0, 10.0]), None)
    close(out[0], jnp.array([4.5, 9.5]))
    by_scale, by_params = pullback(ct)
    close(by_scale, {"a": jnp.array([3.0, 40.0]), "name": None})
    close(by_params, {"x": jnp.array([1.0, 20.0]), "pair": (jnp.asarray(11.0), jnp.zeros(2))})


def test_integer_results_take_float0_or_none():
    out, pullback = sg.vjp(lambda x: {"y": x**2, "n": jnp.arange(3)}, 3.0)
    close(out["n"], jnp.arange(3))
    for zero in (None, np.zeros(3, jax.dtypes.float0)):
        close(pullback({"y": 1.0, "n": zero}), jnp.asarray(6.0))


def test_complex_numbers_as_in_jax():
    z = jnp.array([1.0 + 2.0j, -0.5j])
    f, ct = lambda z: jnp.sin(z) * z, jnp.array([1.0j, 2.0 + 0.0j])
    close(sg.vjp(f, z)[1](ct), jax.vjp(f, z)[1](ct)[0])


def test_the_pullback_is_compiled_once_for_equal_functions():
    w = sg.State(jnp.ones(2), name="w")

    def call(batch):
        return sg.vjp(lambda x: jnp.sum(w.value * x * batch), 2.0, grad_states=w)[1](1.0)

    call(np.array([1.0, 2.0], np.float32))
    before, keys = len(_pure), list(_pure)
    close(call(np.array([5.0, 7.0], np.float32)), (jnp.array([10.0, 14.0]), jnp.asarray(12.0)))
    assert len(_pure) == before and list(_pure) == keys


def test_a_pullback_keeps_its_residuals_when_the_state_is_donated():
    w = sg.State(jnp.array([2.0, 3.0]), name="w")

    @sg.jit
    def step():
        w.value = w.value * 2

    step()
    _, pullback = sg.vjp(lambda x: jnp.sum(w.value**2 * x), 1.0, grad_states=w)
    step()
    step()
    close(pullback(1.0), (jnp.array([8.0, 12.0]), jnp.asarray(52.0)))


def test_nothing_is_saved_for_what_is_not_differentiated():
    w = sg.State(jnp.ones(2), name="w")

    def f(x):
        w.value = jnp.tanh(w.value * x)
        return x.sum(), {"aux": jnp.exp(x), "w": w.value}

    _, pullback, _ = sg.vjp(f, jnp.ones(2), has_aux=True)
    assert not jax.tree.leaves(pullback)
    close(pullback(2.0), jnp.array([2.0, 2.0]))


def test_closures_and_flags_are_seen_at_each_call():
    flags = {"square": True}

    def f(x):
        return x**2 if flags["square"] else x**3

    assert sg.vjp(f, 2.0)[1](1.0) == 4.0
    flags["square"] = False
    assert sg.vjp(f, 2.0)[1](1.0) == 12.0


# ----------------------------------------------------------------------------------------- jvp and linearize
def test_jvp_of_arguments_and_states(recurrent, w):
    (out, end), (d_out, d_end) = jax.jvp(pure, (X, W), (DX, DW))
    found = sg.jvp(recurrent, (X,), (DX,), state_tangents={w: DW}, final_states={"end": w})
    close(found, (out, d_out, {"end": d_end}))
    close(w.value, end)


def test_jvp_by_states_only_and_by_arguments_only(recurrent, w):
    _, (expected, _) = jax.jvp(lambda w: pure(X, w), (W,), (DW,))
    close(sg.jvp(recurrent, (X,), (None,), grad_states=[w], state_tangents=[DW])[1], expected)
    w.value = W
    _, (expected, _) = jax.jvp(lambda x: pure(x, W), (X,), (DX,))
    close(sg.jvp(recurrent, (X,), (DX,))[1], expected)


def test_jvp_with_aux_integers_and_float0():
    def f(x, n):
        return {"y": x**2 * n, "n": n + 1}, "aux" in {"aux"}

    out, tangent, aux = sg.jvp(
        f, (3.0, 2), (1.0, np.zeros((), jax.dtypes.float0)), has_aux=True, static_argnames=()
    )
    assert out["y"] == 18.0 and tangent["y"] == 12.0 and aux
    assert tangent["n"].dtype == jax.dtypes.float0
    assert sg.jvp(f, (3.0, 2), (1.0, None), has_aux=True)[1]["y"] == 12.0


def test_linearize(recurrent, w):
    (out, end), linear = jax.linearize(pure, X, W)
    found, ours = sg.linearize(recurrent, X, grad_states=w, argnums=0, final_states=w)
    close(found, out)
    close(w.value, end)
    close(ours(DX, state_tangents=DW), linear(DX, DW))
    close(ours(DX), linear(DX, jnp.zeros(2)))
    close(ours(state_tangents=DW), linear(jnp.zeros(3), DW))
    close(ours(None, state_tangents=DW), linear(jnp.zeros(3), DW))


def test_linearize_by_all_arguments_by_default():
    out, linear = sg.linearize(lambda x, n, y: x * n + y, 2.0, 3, 5.0)
    assert out == 11.0
    assert linear(1.0, None, 10.0) == 13.0
    out, linear, aux = sg.linearize(lambda x: (x**2, x), 3.0, has_aux=True)
    assert (out, linear(1.0), aux) == (9.0, 6.0, 3.0)


def test_linearize_by_states_only(recurrent, w):
    _, linear = jax.linearize(pure, X, W)
    close(sg.linearize(recurrent, X, grad_states=[w])[1](state_tangents=[DW]), linear(jnp.zeros(3), DW)[0])


def test_inner_product_of_jvp_and_vjp(recurrent, w):
    _, tangent, (end,) = sg.jvp(recurrent, (X,), (DX,), state_tangents={w: DW}, final_states=[w])
    w.value = W
    end_ct = jnp.array([0.4, -0.6])
    by_w, by_x = sg.vjp(recurrent, X, grad_states=w, final_states=w)[1](CT, end_ct)
    forward = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(CT), jax.tree.leaves(tangent), strict=True))
    forward += jnp.vdot(end_ct, end)
    np.testing.assert_allclose(forward, jnp.vdot(by_w, DW) + jnp.vdot(by_x, DX), rtol=1e-5)


def test_containers_of_states():
    Pair = namedtuple("Pair", "left right")
    a, b = sg.State(2.0, name="a"), sg.State(3.0, name="b")
    model = sg.nn.Linear(2, 1)

    def f(x):
        return a.value * b.value**2 * x

    states = {"pair": Pair(a, b), "again": [a, None]}
    out, pullback = sg.vjp(f, 1.0, grad_states=states, argnums=None)
    assert out == 18.0
    close(
        pullback(1.0), {"pair": Pair(jnp.asarray(9.0), jnp.asarray(12.0)), "again": [jnp.asarray(9.0), None]}
    )
    tangent = sg.jvp(f, (1.0,), None, grad_states=Pair(a, b), state_tangents=Pair(1.0, None))[1]
    assert tangent == 9.0
    gradients = sg.vjp(model, jnp.ones((1, 2)), grad_states=model.states(), argnums=None)[1](jnp.ones((1, 1)))
    _, linear = sg.linearize(model, jnp.ones((1, 2)), grad_states=model)
    np.testing.assert_allclose(
        linear(state_tangents=gradients), sum(jnp.vdot(g, g) for g in gradients.values()), rtol=1e-6
    )


# ------------------------------------------------------------------------------------------------ programs
def powers(x):
    return jax.lax.while_loop(lambda y: y < 10.0, lambda y: y * x, x)


def test_forward_mode_through_a_loop_without_a_bound():
    close(sg.jvp(powers, (2.0,), (1.0,)), (jnp.asarray(16.0), jnp.asarray(32.0)))
    out, linear = sg.linearize(powers, 2.0)
    assert (out, linear(0.5)) == (16.0, 16.0)
    close(jax.vmap(linear)(jnp.array([1.0, 2.0])), jnp.array([32.0, 64.0]))


def test_effects_and_draws_happen_once():
    seen, s = [], sg.random.RandomState(0)

    def f(x):
        jax.debug.callback(lambda v: seen.append(float(v)), x)
        return jnp.sin(x) * s.normal()

    keys = [s.value]
    for call in (
        lambda: [sg.vjp(f, 2.0)[1](ct) for ct in (1.0, 2.0)],
        lambda: sg.jvp(f, (2.0,), (1.0,)),
        lambda: sg.linearize(f, 2.0)[1](1.0),
        lambda: sg.hvp(f, (2.0,), (1.0,)),
    ):
        call()
        keys.append(s.value)
    jax.effects_barrier()
    assert len(seen) == 5, "vjp is called twice, the others once"
    fresh = sg.random.RandomState(0)
    for _ in range(5):
        fresh.split_key()
    np.testing.assert_array_equal(keys[-1], fresh.value)


def test_states_that_begin_or_change_inside_of_a_trace():
    changes = sg.State(1.0, name="changes")

    @sg.jit
    def local(x):
        s = sg.State(x * 2)

        def f(y):
            s.value = s.value * y
            return s.value**2

        _, pullback = sg.vjp(f, x, grad_states=s, final_states=s)
        return pullback(1.0, 1.0), s.value

    close(local(3.0), ((jnp.asarray(111.0), jnp.asarray(222.0)), jnp.asarray(18.0)))

    @sg.jit
    def retyped(x):
        changes.value = {"a": x, "b": x * 2}

        def f(y):
            return changes.value["a"] * y + changes.value["b"] ** 2

        back = sg.vjp(f, x, grad_states=changes)[1](1.0)
        return back, sg.jvp(f, (x,), (None,), state_tangents={changes: {"a": 1.0, "b": None}})[1]

    close(
        retyped(3.0), (({"a": jnp.asarray(3.0), "b": jnp.asarray(12.0)}, jnp.asarray(3.0)), jnp.asarray(3.0))
    )


def test_threads_lose_no_update():
    count = sg.State(0.0, name="count")

    def f(x):
        count.value += 1.0
        return x**2

    def work():
        for _ in range(5):
            assert sg.vjp(f, 3.0)[1](1.0) == 6.0
            assert sg.jvp(f, (3.0,), (1.0,))[1] == 6.0

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert count.value == 80.0
