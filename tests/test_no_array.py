"""A State in the place of its value: the error says so."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

ONES = jnp.ones(3)
USES = [
    lambda w: w * ONES,
    lambda w: ONES * w,
    lambda w: np.ones(3) - w,
    lambda w: 2 / w,
    lambda w: w**2,
    lambda w: w @ ONES,
    lambda w: -w,
    lambda w: w > 0,
    lambda w: w[0],
    lambda w: list(w),
    lambda w: len(w),
    lambda w: float(w),
    lambda w: np.asarray(w),
    lambda w: jnp.asarray(w),
    lambda w: operator.iadd(w, 1),
    lambda w: operator.setitem(w, 0, 1.0),
    lambda w: "yes" if w else "no",
]


@pytest.mark.parametrize("use", USES)
def test_a_use_as_an_array(use):
    w = sg.State(ONES, name="w")
    for run in (use, lambda w: sg.jit(lambda: use(w))()):
        with pytest.raises(sg.StateError, match=r"the State 'w' .*test_no_array.py.*value"):
            run(w)
    np.testing.assert_array_equal(w.value, ONES)


def test_what_a_state_can_do():
    w, v = sg.State(ONES), sg.State(ONES)
    assert w == w and w != v and w in [v, w] and {w: 1}[w] == 1
    assert w is not None and jax.tree.leaves([w]) == [w]


def test_a_module_as_an_argument():
    layer = sg.nn.Linear(3, 2)
    with pytest.raises(sg.TraceError, match=r"(?s)argument 'm' .* it has States: close over it"):
        sg.jit(lambda m, x: m(x))(layer, ONES)


def test_a_state_of_the_same_name():
    w, other = (sg.State(ONES, name="w") for _ in range(2))
    with pytest.raises(sg.GradientError, match="it uses another State of that name; give the one"):
        sg.grad(lambda: other.value.sum(), grad_states=w)()
