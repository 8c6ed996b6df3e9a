"""What a call costs and keeps: traces, compilations, arrays; and that nothing old is used."""

import gc
import threading
import weakref
from io import StringIO

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad import state
from stategrad.array_guard import ArrayGuard


def compilations(monkeypatch):
    """A list that grows with each program that is compiled."""
    found = []
    build = sg.transform.compiled.Compiled.__init__

    def counted(self, *args, **options):
        found.append(self)
        build(self, *args, **options)

    monkeypatch.setattr(sg.transform.compiled.Compiled, "__init__", counted)
    return found


TRANSFORMS = {
    "grad": sg.grad,
    "value_and_grad": sg.value_and_grad,
    "vector_grad": sg.vector_grad,
    "fwd_grad": sg.fwd_grad,
    "jacrev": sg.jacrev,
    "jacfwd": sg.jacfwd,
    "hessian": sg.hessian,
    "jit": sg.jit,
    "vmap": sg.vmap,
    "debug_nan": lambda f: sg.grad(f, debug_nan=True),
    "GradientTransform": lambda f: sg.GradientTransform(f, jax.grad),
    "custom": lambda f: sg.GradientTransform(f, lambda g, **options: jax.grad(g, **options)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_transformed_function_is_traced_once(name):
    """In steady state nothing is traced, and a changed closure is seen all the same."""
    traces, rate, w = StringIO(), 2.0, sg.State(3.0, name="w")

    def f(x):
        traces.write(".")
        return jnp.sum(rate * w.value * x**3)

    transformed = TRANSFORMS[name](f)
    x = jnp.arange(1.0, 3.0) if name == "vmap" else jnp.asarray(2.0)
    first = transformed(x)
    assert len(traces.getvalue()) == 1
    transformed(x)
    w.value = 6.0
    doubled = transformed(x)
    assert len(traces.getvalue()) == 1, "another value of a State is no reason to trace"
    rate = 4.0
    other = transformed(x)
    assert len(traces.getvalue()) == 2
    assert "'rate' changed from 2.0 to 4.0" in transformed.explain()
    if name != "fwd_grad":  # which draws anew
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 2 * b), doubled, first)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 4 * b), other, first)


def test_signatures_are_told_apart():
    """Shapes, dtypes, weak types, structures, numbers and static arguments: each has a program of its own."""
    traces = StringIO()

    def f(x, flag=False):
        traces.write(".")
        return jnp.sum(jax.tree.leaves(x)[0] * jnp.ones((), jnp.bfloat16)) * (3.0 if flag else 1.0)

    g = sg.jit(f, static_argnames="flag")
    calls = [
        (1.0,),
        (jnp.float32(1.0),),
        (jnp.ones(2),),
        (jnp.ones(2, jnp.int32),),
        ((jnp.ones(2),),),
        ({"a": jnp.ones(2)},),
        (1.0, True),
    ]
    for _ in range(3):
        found = [g(*args) for args in calls]
        expected = [jax.jit(f, static_argnames="flag")(*args) for args in calls]
        assert [x.dtype for x in found] == [x.dtype for x in expected]
        np.testing.assert_array_equal(np.array(found, np.float32), np.array(expected, np.float32))
    assert len(traces.getvalue()) == 2 * len(calls), "once by us, once by JAX"
    assert g.explain().count("trace ") == len(calls), g.explain()


def test_functions_made_anew_share_a_program(monkeypatch):
    made = compilations(monkeypatch)
    for scale in (1.0, 2.0, 3.0):
        array = jnp.full(3, scale)
        assert sg.grad(lambda x: jnp.sum(array * x))(2.0) == 3 * scale  # noqa: B023
        assert sg.jit(lambda x: jnp.sum(array * x))(2.0) == 6 * scale  # noqa: B023
    assert len(made) == 2


def test_another_structure_of_a_state_concerns_only_its_functions(monkeypatch):
    mine, other = sg.State(jnp.ones(2), name="mine"), sg.State(jnp.ones(2), name="other")
    f = sg.jit(lambda: mine.value * 2)
    g = sg.jit(lambda: jax.tree.map(lambda x: x * 2, other.value))
    f(), g()
    made = compilations(monkeypatch)
    for value in ({"a": jnp.ones(2)}, jnp.ones(2), {"a": jnp.ones(2)}):
        other.value = value
        np.testing.assert_array_equal(f(), [2, 2])
        np.testing.assert_array_equal(jax.tree.leaves(g())[0], [2, 2])
    assert len(made) == 1, "the second structure of `other`"
    assert f.explain().count("trace ") == 1
    assert "the State 'other' changed from" in g.explain()


def test_a_state_without_arrays_is_watched():
    act, x = sg.State("sin", name="act"), jnp.float32(0.5)
    for f in (sg.jit(lambda x: getattr(jnp, act.value)(x)), sg.grad(lambda x: getattr(jnp, act.value)(x))):
        act.value = "sin"
        first = f(x)
        act.value = "cos"
        assert f(x) != first
        assert "the State 'act' changed from" in f.explain()


def test_another_dtype_of_a_state_that_is_only_written():
    """A weak value takes the dtype that the State has when the function is called."""
    s = sg.State(jnp.float32(0.0), name="s")

    def f():
        s.value = 1.5

    for compiled in (sg.jit(f), sg.jit(f, donate=False)):
        for dtype in (jnp.float32, jnp.bfloat16, jnp.float32):
            s.value = jnp.zeros((), dtype)
            compiled()
            assert s.value.dtype == dtype and s.value == 1.5


def test_functions_that_are_gone_keep_no_arrays():
    gc.collect()
    before = sum(x.size for x in jax.live_arrays())
    for i in range(4):
        for transform in (sg.jit, sg.grad):
            big = jnp.full(50_000, float(i))
            inner = jax.jit(lambda x, big=big: jnp.sum(big * x))
            f = transform(lambda x, big=big, inner=inner: jnp.sum(big * x) + inner(x))
            f(2.0), f(2.0)
    f = big = inner = None
    gc.collect()
    assert sum(x.size for x in jax.live_arrays()) - before < 50_000


def test_what_a_state_holds_changes_as_one(monkeypatch):
    """An interrupt in an assignment leaves structure and leaves of one value: that before, or that after."""
    s = sg.State((jnp.zeros(2), jnp.zeros(3)), name="s")
    put = state.put  # in C: an interrupt comes before or after it

    def before(slots, arrays, exclusive):
        raise KeyboardInterrupt

    def after(slots, arrays, exclusive):
        put(slots, arrays, exclusive)
        raise KeyboardInterrupt

    for interrupted, expected in ((before, [0.0, 0.0]), (after, [2.0, 3.0])):
        monkeypatch.setattr(state, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            s.value = (jnp.ones(2), jnp.ones(3))
        assert [float(x.sum()) for x in s.value] == expected

    class Interrupted(state.Stored):
        def __init__(self, *args):
            raise KeyboardInterrupt

    monkeypatch.setattr(state, "Stored", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        s.value = {"a": jnp.ones(4)}
    assert [x.shape for x in s.value] == [(2,), (3,)]


def test_large_numpy_arrays_are_sampled():
    array = np.zeros(1_000_000, np.float32)
    guard = ArrayGuard(array)
    assert guard.holds()
    array[300_000:310_000] = 1.0
    assert not guard.holds(), "a stretch of more than a 512th"
    array[:] = 0.0
    guard = ArrayGuard(array)
    array[777_777] = 1.0
    assert not all(guard.holds() for _ in range(array.nbytes // (64 * 1024) + 2)), (
        "one element, after a round"
    )


@pytest.mark.parametrize("layout", ["C", "F", "strided", "broadcast", "objects", "empty", "scalar"])
def test_numpy_arrays_of_any_layout_are_watched(layout):
    base = np.arange(12.0).reshape(3, 4)
    array = {
        "C": base,
        "F": np.asfortranarray(base),
        "strided": base[:, ::2],
        "broadcast": np.broadcast_to(base[0], (5, 4)),
        "objects": base.astype(object),
        "empty": np.zeros((0, 3)),
        "scalar": np.array(1.0),
    }[layout]
    guard = ArrayGuard(array)
    assert guard.holds() and guard.holds()
    if layout != "empty":
        (base if layout == "broadcast" else array)[(0,) * (array.ndim if layout != "broadcast" else 2)] = (
            np.nan
        )
        assert not guard.holds()


def test_a_body_that_another_function_left_in_the_caches_of_jax():
    flag = True

    def body(c, _):
        return (c + 1.0 if flag else c), None

    assert sg.jit(lambda x: jax.lax.scan(body, x, None, length=3)[0])(0.0) == 3.0
    flag = False
    assert sg.jit(lambda x: jax.lax.scan(body, x, None, length=3)[0])(0.0) == 0.0


def test_each_donation_gives_the_arrays_back():
    """In steady state no State is copied: what XLA gives is what it takes at the next call."""
    w, read = sg.State(jnp.zeros(1000), name="w"), sg.State(jnp.ones(1000), name="read")

    @sg.jit
    def step():
        w.value = w.value + read.value

    for _ in range(3):
        held = w.slots[0].array
        step()
    assert held.is_deleted() and not read.slots[0].array.is_deleted()
    kept = sg.jit(lambda: setattr(w, "value", w.value + 1), donate=False)
    held = w.slots[0].array
    kept()
    assert not held.is_deleted()


def test_an_interrupted_first_call_does_not_slow_down_the_next():
    def f(x):
        return x * 2 - 0.125  # no other test has this program

    g, ran = sg.jit(f), []
    bind = sg.transform.compiled.Compiled._run

    def interrupted(self, *args, **kwargs):
        ran.append(self)
        if len(ran) == 1:
            raise KeyboardInterrupt
        return bind(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sg.transform.compiled.Compiled, "_run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            g(2.0)
        for _ in range(3):
            assert g(2.0) == 3.875
    assert len(ran) == 2, "the program is compiled again, and then runs without Python"


def test_gradients_from_threads_lose_no_update():
    n = sg.State(jnp.float32(0.0), name="n")

    def loss(x):
        n.value += 1.0
        return x * n.value

    shared = sg.grad(loss)

    def work():
        for _ in range(40):
            shared(1.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert n.value == 320.0


def test_products_of_one_function_are_traced_once():
    traces, rate, w = StringIO(), 2.0, sg.State(3.0, name="w")

    def f(x):
        traces.write(".")
        return rate * w.value * x**3

    products = {
        "jvp": lambda: sg.jvp(f, (2.0,), (1.0,))[1],
        "vjp": lambda: sg.vjp(f, 2.0)[1](1.0),
        "linearize": lambda: sg.linearize(f, 2.0)[1](1.0),
        "hvp": lambda: sg.hvp(f, (2.0,), (1.0,)),
    }
    first = {name: float(product()) for name, product in products.items()}
    assert first == {"jvp": 72.0, "vjp": 72.0, "linearize": 72.0, "hvp": 72.0}
    count = len(traces.getvalue())
    w.value = 6.0
    assert {float(product()) for product in products.values()} == {144.0}
    assert len(traces.getvalue()) == count
    rate = 4.0
    assert {float(product()) for product in products.values()} == {288.0}
    w.value = jnp.ones(2)
    assert sg.jvp(f, (2.0,), (1.0,))[1].shape == (2,)
    alive = weakref.ref(f)
    f = products = None
    gc.collect()
    assert alive() is None
