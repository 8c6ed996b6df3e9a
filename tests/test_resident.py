"""Arrays of States that stay with the call that wrote them, until somebody else wants them."""

import copy
import gc
import pickle
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.resident import LOCK, RESIDENT


@pytest.fixture
def w() -> sg.State:
    return sg.State(jnp.zeros(3), name="w")


@pytest.fixture
def step(w):
    @sg.jit
    def step(by=1.0):
        w.value = w.value + by
        return w.value.sum()

    for _ in range(2):
        step()
    assert RESIDENT.now is not None and w._stored.slots[0].array.is_deleted(), "the array is with the call"
    return step


def pulled(w):
    sg.vjp(lambda x: w.value * x, 1.0)


READERS = {
    "value": lambda w: w.value,
    "copy": lambda w: copy.copy(w).value,
    "deep copy": lambda w: copy.deepcopy(w).value,
    "pickle": lambda w: pickle.loads(pickle.dumps(w)).value,
    "slots": lambda w: w.slots[0].array,
    "another call": lambda w: sg.jit(lambda: w.value + 0.0)(),
    "a gradient": lambda w: sg.grad(lambda x: (w.value * x).sum() / 3)(1.0) * jnp.ones(3),
    "jvp": lambda w: sg.jvp(lambda x: w.value * x, (1.0,), (1.0,))[1],
    "vjp": lambda w: sg.vjp(lambda x: w.value * x, 1.0)[0],
    "a run that JAX traces": lambda w: jax.jit(lambda x: sg.jit(lambda x: w.value * x)(x))(1.0),
    "compiled ahead of time": lambda w: sg.jit(lambda: w.value * 1.0).lower().compile()(),
    "eager operation": lambda w: sg.cond(True, lambda: w.value, lambda: w.value),
}


@pytest.mark.parametrize("reader", READERS)
def test_whoever_looks_sees_what_was_written(reader, w, step):
    if reader == "a run that JAX traces":
        with pytest.raises(sg.StateError, match="'w'"):
            READERS[reader](w)
    else:
        np.testing.assert_array_equal(READERS[reader](w), [2, 2, 2])
    step()
    step(by=2.0)
    np.testing.assert_array_equal(w.value, [5, 5, 5])


def test_what_is_assigned_replaces_what_was_written(w, step):
    w.value = jnp.full(3, 7.0)
    step()
    np.testing.assert_array_equal(w.value, [8, 8, 8])
    held = w.value
    step()
    np.testing.assert_array_equal(held, [8, 8, 8])
    np.testing.assert_array_equal(w.value, [9, 9, 9])


def test_a_state_that_is_only_read_is_read_anew():
    w, rate = sg.State(jnp.zeros(3), name="w"), sg.State(1.0, name="rate")

    @sg.jit
    def step():
        w.value = w.value + rate.value

    @sg.jit
    def anneal():
        rate.value = rate.value * 2

    for _ in range(3):
        step(), step(), anneal()
    np.testing.assert_array_equal(w.value, [14, 14, 14])


def test_functions_take_turns():
    a, b = (sg.State(jnp.zeros(2), name=name) for name in "ab")
    first = sg.jit(lambda: (setattr(a, "value", a.value + 1), setattr(b, "value", b.value + a.value))[2:])
    second = sg.jit(lambda: setattr(b, "value", b.value * 2))
    total = jnp.zeros(2)
    for i in range(5):
        first(), second()
        total = (total + i + 1) * 2
    np.testing.assert_array_equal(b.value, total)
    np.testing.assert_array_equal(a.value, [5, 5])


def test_a_call_that_fails_changes_nothing(w, step):
    with pytest.raises(TypeError):
        step(by="one")
    with pytest.raises(sg.TraceError):
        step(by=object())
    np.testing.assert_array_equal(w.value, [2, 2, 2])
    step(), step()
    np.testing.assert_array_equal(w.value, [4, 4, 4])


def test_other_types_of_arguments_between(w, step):
    step(jnp.ones(3))
    step(by=jnp.ones(()))
    step(1)
    np.testing.assert_array_equal(w.value, [5, 5, 5])


def test_a_function_that_is_gone_leaves_the_arrays_to_the_states(w):
    step = sg.jit(lambda: setattr(w, "value", w.value + 1))
    step(), step()
    gone = weakref.ref(step)
    del step
    gc.collect()
    assert gone() is None and RESIDENT.now is None
    np.testing.assert_array_equal(w.value, [2, 2, 2])


def test_states_and_functions_that_are_gone_keep_no_array():
    def train():
        w = sg.State(jnp.zeros(54_321), name="w")
        step = sg.jit(lambda: setattr(w, "value", w.value + 1))
        step(), step()

    train()
    gc.collect()
    assert all(x.size != 54_321 for x in jax.live_arrays())


def test_a_function_that_goes_while_a_call_runs_waits_for_no_lock(w):
    step = sg.jit(lambda: setattr(w, "value", w.value + 1))
    step(), step()
    held, release = threading.Event(), threading.Event()

    def hold():
        with LOCK:
            held.set()
            release.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    held.wait(60)
    del step
    gc.collect()  # would wait for ever if it waited
    release.set()
    other.join()
    np.testing.assert_array_equal(w.value, [2, 2, 2])


class Looking:
    """An argument that does something when JAX flattens it, in the middle of a call."""

    act = None

    def __init__(self, child):
        self.child = child


def _flatten(looking):
    if Looking.act is not None:
        Looking.act()
    return (looking.child,), None


jax.tree_util.register_pytree_node(Looking, _flatten, lambda _, children: Looking(*children))


@pytest.mark.parametrize("act", ["read", "write", "call"])
def test_who_looks_while_a_call_runs_in_the_same_thread(act, w):
    """What the call writes comes last; who reads sees what there was before."""
    seen, other = [], sg.State(jnp.zeros(()), name="other")
    count = sg.jit(lambda: setattr(other, "value", other.value + 1))
    acts = {
        "read": lambda: seen.append(np.array(w.value)),
        "write": lambda: setattr(other, "value", jnp.full((), 5.0)),
        "call": count,
    }

    @sg.jit
    def step(given):
        w.value = w.value + 1
        return given.child * 2

    step(Looking(1.0)), step(Looking(1.0))
    try:
        Looking.act = acts[act]
        step(Looking(1.0))
    finally:
        Looking.act = None
    np.testing.assert_array_equal(w.value, [3, 3, 3])
    assert all((x == 2).all() for x in seen) and (act != "read" or seen)
    step(Looking(1.0)), step(Looking(1.0))
    np.testing.assert_array_equal(w.value, [5, 5, 5])
    assert other.value > 0 if act == "call" else other.value == (5.0 if act == "write" else 0.0)


def test_under_debug_nans_nothing_is_donated(w, step):
    with jax.debug_nans(True):
        step()
        with pytest.raises(FloatingPointError):
            step(jnp.nan)
    np.testing.assert_array_equal(w.value, [3, 3, 3])


def test_threads_that_read_and_write(w, step):
    seen = []

    def work():
        for _ in range(50):
            step()
            seen.append(np.unique(w.value))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(len(x) == 1 for x in seen)
    np.testing.assert_array_equal(w.value, [402, 402, 402])
