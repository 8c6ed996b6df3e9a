"""JAX's transforms around ours, ours around each other, to third order, in JAX's modes, from threads."""

import _thread
import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.state import LOCK

MODES = {
    "plain": contextlib.nullcontext,
    "x64": lambda: jax.enable_x64(True),
    "no jit": jax.disable_jit,
    "strict ranks": lambda: jax.numpy_rank_promotion("raise"),
}
OURS = {"grad": sg.grad, "jacrev": sg.jacrev, "jacfwd": sg.jacfwd, "jit": sg.jit}
THEIRS = {"grad": jax.grad, "jacrev": jax.jacrev, "jacfwd": jax.jacfwd, "jit": jax.jit}


@pytest.fixture(params=MODES)
def mode(request):
    with MODES[request.param]():
        yield request.param


def pure(w, x):
    return jnp.sin(w * x) * x + jnp.exp(-w * x**2)


def with_state(w):
    def f(x):
        held = w.value
        w.value = held * 1.0
        return jnp.sin(w.value * x) * x + jnp.exp(-held * x**2)

    return f


@pytest.mark.parametrize(
    "order",
    ["grad", "jit grad", "grad grad", "jacfwd grad", "jacrev jacfwd grad", "grad jit grad", "grad grad grad"],
)
@pytest.mark.parametrize("outer", ["ours", "theirs"])
def test_transforms_around_each_other(mode, order, outer):
    w = sg.State(jnp.asarray(0.7), name="w")
    ours, theirs = with_state(w), lambda x: pure(0.7, x)
    names = order.split()[::-1]
    for name in names:
        theirs = THEIRS[name](theirs)
    if outer == "theirs" and names[-1] != "jit":
        # JAX's transforms refuse functions that write: the same without the write, and JAX's around it last.
        ours = THEIRS[names[-1]](chain(lambda x: pure(w.value, x), names[:-1]))
    else:
        ours = chain(ours, names)
    np.testing.assert_allclose(ours(0.4), theirs(0.4), rtol=2e-4)


def chain(function, names):
    for name in names:
        function = OURS[name](function)
    return function


def test_vmap_and_scan_around_ours(mode):
    w = sg.State(jnp.asarray(0.7), name="w")
    gradient, expected = sg.grad(lambda x: pure(w.value, x)), jax.grad(lambda x: pure(0.7, x))
    xs = jnp.asarray([0.1, 0.5, 0.9])
    np.testing.assert_allclose(jax.vmap(gradient)(xs), jax.vmap(expected)(xs), rtol=1e-4)

    @sg.jit
    def run(xs):
        return jax.lax.scan(lambda c, x: (c + gradient(x), gradient(c)), jnp.zeros_like(xs[0]), xs)

    def run_pure(xs):
        return jax.lax.scan(lambda c, x: (c + expected(x), expected(c)), jnp.zeros_like(xs[0]), xs)

    for ours, theirs in zip(run(xs), run_pure(xs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_gradients_from_eight_threads():
    w, n = sg.State(jnp.asarray(0.7), name="w"), sg.State(0, name="n")

    def loss(x):
        n.value += 1
        return pure(w.value, x)

    gradient, expected = sg.grad(loss, grad_states=w), jax.grad(pure)
    wrong = []

    def work(k):
        for i in range(5):
            x = 0.1 * (k + i)
            if not np.allclose(gradient(x), expected(0.7, x), rtol=1e-4):
                wrong.append(x)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong and n.value == 40


def call_jitted(state):
    sg.jit(lambda: state.value * 2.0)()


def call_gradient(state):
    sg.grad(lambda x: state.value * x)(1.0)


def begin_callback(run):
    """Begins a thread as JAX begins its host callbacks: not by Python's `threading`, with a frame of JAX."""
    namespace = {}
    exec(compile("def begin(run): run()", jax.__file__, "exec"), namespace)
    _thread.start_new_thread(namespace["begin"], (run,))


@pytest.mark.parametrize(
    "touch", [lambda s: s.value, lambda s: setattr(s, "value", 0.0), call_jitted, call_gradient]
)
def test_a_callback_never_waits_for_the_call_that_waits_for_it(touch):
    state, raised, over = sg.State(1.0, "state"), [], threading.Event()
    sg.jit(lambda: setattr(state, "value", state.value + 1.0))()

    def callback():
        try:
            touch(state)
        except sg.StateError as error:
            raised.append(str(error))
        over.set()

    with LOCK:
        begin_callback(callback)
        assert over.wait(60)
    assert len(raised) == 1 and "host callback" in raised[0] and "test_modes.py" in raised[0]
    assert state.value == 2.0


def test_a_thread_that_threading_did_not_start_waits_for_the_call_that_runs():
    state, seen, over = sg.State(1.0, "state"), [], threading.Event()
    step = sg.jit(lambda: setattr(state, "value", state.value + 1.0))
    step()

    def work():
        seen.append(float(state.value))
        step()
        over.set()

    with LOCK:
        _thread.start_new_thread(work, ())
        assert not over.wait(0.1)
    assert over.wait(60)
    assert seen == [2.0] and state.value == 3.0
