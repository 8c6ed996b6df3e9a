"""`jit`: donation, plans, static arguments, methods, compilation ahead of time, JAX's debugging modes."""

import copy
import pickle
import subprocess
import sys
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg


def test_donation_never_takes_an_array_that_somebody_holds():
    start = jnp.arange(4.0)
    w, twin = sg.State(start, name="w"), sg.State(start, name="twin")

    @sg.jit
    def step():
        w.value = w.value + 1
        twin.value = twin.value * 2
        return w.value

    returned = step()
    held = w.value
    step()
    step()
    np.testing.assert_array_equal(start, [0, 1, 2, 3])
    np.testing.assert_array_equal(held, [1, 2, 3, 4])
    np.testing.assert_array_equal(returned, [1, 2, 3, 4])
    np.testing.assert_array_equal(w.value, [3, 4, 5, 6])
    np.testing.assert_array_equal(twin.value, [0, 8, 16, 24])


def test_donation_reuses_the_buffers_that_only_the_state_holds():
    w = sg.State(jnp.zeros(8), name="w")

    @sg.jit
    def step():
        w.value = w.value + 1

    step()
    inside = w.slots[0].array
    step()
    assert inside.is_deleted()


def test_calls_of_several_signatures_take_turns():
    """Each is traced once; what one of them writes, and what changes in between, the next one sees."""
    total = sg.State(0.0, name="total")
    factor = 1.0

    @sg.jit
    def add(x):
        total.value = total.value + factor * jnp.sum(x)
        return total.value

    kinds = [jnp.ones(2), 1.0, np.float32(1), np.ones((2, 2), np.float32), 1, jnp.ones(2)]
    for _ in range(4):
        expected = float(total.value)
        for x in kinds:
            expected += float(np.sum(x))
            assert add(x) == expected
    # Two vectors are alike; numbers of NumPy's are arrays, those of Python's have two weak types.
    assert len(add.explain().splitlines()) == 5
    factor = 3.0
    assert add(jnp.ones(2)) == expected + 6.0
    assert add(1.0) == expected + 9.0
    total.value = jnp.zeros(2)
    np.testing.assert_array_equal(add(jnp.ones(2)), [6.0, 6.0])
    np.testing.assert_array_equal(add(1.0), [9.0, 9.0])
    total.value = 0.0
    assert add(jnp.ones(2)) == 6.0
    assert add(1.0) == 9.0


def test_two_signatures_share_one_plan():
    a, b = sg.State(jnp.zeros(()), name="a"), sg.State(jnp.zeros(()), name="b")

    @sg.jit
    def step(x):
        which = a if x.ndim else b
        which.value = which.value + x.sum()

    for _ in range(2):
        step(jnp.ones(3))
        step(jnp.ones(()))
    assert (a.value, b.value) == (6.0, 2.0)


def test_static_arguments():
    @sg.jit(static_argnames="power")
    def f(x, power):
        assert isinstance(power, int)
        return x**power

    assert f(2.0, 3) == 8.0 and f(2.0, power=2) == 4.0
    assert sg.grad(lambda x, n: x**n, static_argnums=1)(2.0, 3) == pytest.approx(12.0)


def test_methods_can_be_transformed():
    class Counter:
        def __init__(self):
            self.n = sg.State(0, name="n")

        @sg.jit
        def add(self, k):
            self.n.value += k
            return self.n.value

        @sg.grad(argnums=0)
        def slope(self, x):
            self.n.value += 1
            return x**2

    one, two = Counter(), Counter()
    assert one.add(2) == 2 and one.add(3) == 5 and two.add(1) == 1
    assert one.slope(3.0) == 6.0 and one.n.value == 6


def test_compiled_ahead_of_time():
    w = sg.State(1.0, name="w")

    @sg.jit(static_argnums=1)
    def step(x, n):
        w.value = w.value * x**n
        return w.value

    lowered = step.lower(2.0, 3)
    assert "module @jit_step" in lowered.as_text()
    compiled = lowered.compile()
    assert (compiled(2.0, 3), compiled(3.0, 3)) == (8.0, 216.0)
    assert w.value == 216.0
    assert compiled.cost_analysis()["flops"] > 0
    assert compiled.memory_analysis().argument_size_in_bytes >= 8
    gradient = sg.grad(lambda x: x * w.value, grad_states=w).lower(2.0).compile()
    assert gradient(4.0) == 4.0


def test_under_debug_nans():
    with jax.debug_nans(True):
        assert sg.grad(lambda x: x**2)(2.0) == 4.0
        for bad in (sg.jit(jnp.log), sg.grad(jnp.log)):
            with pytest.raises(FloatingPointError):
                bad(jnp.nan)


def test_a_copy_is_another_state():
    s = sg.ParamState(jnp.ones(2), name="s")
    twin, again = copy.deepcopy(s), copy.copy(s)

    @sg.jit
    def double():
        twin.value = twin.value * 2

    double()
    again.value = jnp.zeros(2)
    np.testing.assert_array_equal(s.value, [1.0, 1.0])
    np.testing.assert_array_equal(twin.value, [2.0, 2.0])
    assert isinstance(twin, sg.ParamState) and twin.name == "s"


def test_a_copy_inside_a_trace_holds_the_value_of_that_place():
    s = sg.State(jnp.ones(2), name="s")

    def f(x):
        s.value = s.value * x
        twin = copy.deepcopy(s)
        twin.value = twin.value * x
        return twin.value.sum()

    assert sg.jit(f)(2.0) == 8.0
    np.testing.assert_array_equal(s.value, [2.0, 2.0])
    assert sg.grad(f, argnums=0)(3.0) == 2 * 2 * 2.0 * 3.0


def test_states_and_modules_are_pickled():
    tied = sg.ParamState({"w": jnp.ones(2), "kind": "plain"}, name="tied", tag="t")
    again, twin = pickle.loads(pickle.dumps((tied, tied)))
    assert again is twin and type(again) is sg.ParamState
    assert (again.name, again.tag, again.value["kind"]) == ("tied", "t", "plain")
    again.value = {"w": jnp.zeros(2), "kind": "plain"}
    np.testing.assert_array_equal(tied.value["w"], [1.0, 1.0])
    model = sg.nn.Linear(2, 3)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model))(jnp.ones(2)), model(jnp.ones(2)))


def test_a_callback_that_fails_loses_no_array():
    s = sg.State(jnp.zeros(3), name="s")

    def fail(_):
        raise ValueError("in the callback")

    @sg.jit
    def f(x):
        s.value = s.value + x
        return jax.pure_callback(fail, jax.ShapeDtypeStruct((), jnp.float32), x)

    with pytest.raises(Exception, match="in the callback"):
        jax.block_until_ready(f(1.0))
    assert not s.value.is_deleted()


_TOO_LARGE = """
import jax, jax.numpy as jnp, stategrad as sg
jax.config.update("jax_cpu_enable_async_dispatch", False)
w, seen = sg.State(jnp.ones(3), "w"), sg.State(0.0, "seen")

def step(n):
    w.value = w.value + seen.value
    return jnp.cumsum(n * jnp.ones((2**20, 2**23)), axis=0)[-1, -1] + w.value.sum()

try:
    sg.jit(step, donate=False)(1.0)
except jax.errors.JaxRuntimeError as error:
    print("gone" in str(error.__notes__), w.value)
for _ in range(2):
    try:
        sg.jit(step)(1.0)
    except Exception as error:
        print(error.__notes__)
w.value = jnp.zeros(3)
step = sg.jit(lambda: setattr(w, "value", w.value + 1.0))
step()
print(w.value)
"""


def test_an_error_of_the_device_says_which_states_it_has_cost():
    run = subprocess.run([sys.executable, "-c", _TOO_LARGE], capture_output=True, text=True, check=True)
    kept, *lost, anew = run.stdout.splitlines()
    assert kept == "False [1. 1. 1.]" and anew == "[1. 1. 1.]"
    assert len(lost) == 2 and all("'w': their values are gone" in line for line in lost), lost


def test_a_value_of_a_finished_trace_is_refused():
    leaked, w = [], sg.State(jnp.ones(2), name="w")
    sg.jit(lambda x: leaked.append(x))(jnp.ones(2))
    with pytest.raises(sg.StateError, match="'w' is given a value of a trace that is over"):
        w.value = leaked[0]


def test_a_donating_call_under_debug_nans_leaves_states_as_they_were():
    total = sg.State(jnp.ones(3), name="total")

    @sg.jit
    def add(x):
        total.value = total.value + x
        return jnp.sum(total.value)

    add(1.0)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        add(jnp.nan)
    assert total.value.tolist() == [2.0] * 3
    assert add(1.0) == 9.0


# ------------------------------------------------------------------------ results that nobody gets
def test_a_gradient_does_not_compute_the_value_that_nobody_asked_for():
    def loss(x):
        return jnp.sum(jnp.exp(jnp.sin(x)))

    text = sg.grad(loss).lower(jnp.ones(3)).as_text()
    assert "reduce" not in text
    assert text.count("jax.result_info") == 1
    np.testing.assert_allclose(sg.grad(loss)(jnp.ones(3)), jax.grad(loss)(jnp.ones(3)), rtol=1e-6)


class Bag(Mapping):
    """A mapping that JAX does not know, so that it looks like a leaf."""

    def __init__(self, items):
        self._items = dict(items)

    def __getitem__(self, key):
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


def test_results_in_containers_that_jax_does_not_know_are_all_there():
    a, b = sg.State(jnp.float32(2.0)), sg.State(jnp.float32(3.0))
    found = sg.grad(lambda: a.value**2 * b.value, grad_states=Bag({"a": a, "b": b}))()
    assert {key: float(found[key]) for key in ("a", "b")} == {"a": 12.0, "b": 4.0}


def test_what_is_written_stays_when_the_value_goes_even_if_its_structure_changes():
    state = sg.State(jnp.float32(2.0))

    def loss(x):
        state.value = (x, state.value if not isinstance(state.value, tuple) else state.value[1])
        return x**3

    assert float(sg.grad(loss)(2.0)) == 12.0
    assert tuple(map(float, state.value)) == (2.0, 2.0)
    assert float(sg.grad(loss)(3.0)) == 27.0
    assert tuple(map(float, state.value)) == (3.0, 2.0)
