"""Wrong calls of vjp, jvp, linearize and hvp: an error that names what is wrong, and States as they were."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

X = jnp.array([0.5, -1.0, 2.0])
W = jnp.array([0.3, 1.2])
DW = jnp.array([-0.7, 0.2])


@pytest.fixture
def w():
    return sg.ParamState(W, name="w")


def cube(x):
    return x**3


def two(x, n):
    return {"a": x * n, "b": [x, n]}


def unused():
    return sg.State(1.0, name="unused")


def counter():
    return sg.State(1, name="count")


def bad_write(state):
    state.value = state.value + 1.0
    raise ZeroDivisionError


def pullback():
    return sg.vjp(two, X, 3)[1]


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "vjp of nothing": (lambda: sg.vjp(lambda: 1.0), r"vjp \(.*nothing to differentiate by"),
    "vjp by no argument": (lambda: sg.vjp(cube, 2.0, argnums=None), "argnums is None"),
    "linearize of nothing": (lambda: sg.linearize(lambda: 1.0), "linearize .*nothing to differentiate by"),
    "argnums out of range": (
        lambda: sg.vjp(cube, 2.0, argnums=3),
        "argnums names argument 3 of cube.*with 1",
    ),
    "argnums twice": (lambda: sg.vjp(two, 2.0, 3, argnums=(0, -2)), "names an argument twice"),
    "argnums of no integer": (lambda: sg.vjp(cube, 2.0, argnums="x"), "must be integers, not 'x'"),
    "integer argument": (lambda: sg.vjp(two, X, 3, argnums=1), r"argument 'n' is i32\[\]"),
    "key argument": (lambda: sg.vjp(jax.random.normal, jax.random.key(0)), "argument 'key' is key<fry>"),
    "static argument": (
        lambda: sg.vjp(two, X, 3, argnums=1, static_argnums=1),
        "argument 1 of two, which is static",
    ),
    "unread State": (
        lambda: sg.vjp(cube, 2.0, grad_states=unused()),
        "State 'unused', but cube does not use it",
    ),
    "integer State": (lambda: sg.vjp(cube, 2.0, grad_states=counter()), r"the State 'count' is i32\[\]"),
    "no State": (lambda: sg.vjp(cube, 2.0, grad_states=[3.0]), "grad_states holds 3.0"),
    "State without a tangent": (
        lambda: sg.jvp(cube, (2.0,), (1.0,), grad_states=sg.State(1.0)),
        r"jvp .* is given grad_states but no tangents",
    ),
    "no State at the end": (lambda: sg.vjp(cube, 2.0, final_states=3.0), "holds 3.0"),
    "cotangent of another structure": (
        lambda: pullback()({"a": X}),
        r"result of two has the structure {'a': \*}",
    ),
    "cotangent of another shape": (
        lambda: pullback()({"a": jnp.ones(2), "b": [X, None]}),
        r"the cotangent of the result\['a'\] of two is float32\[2\], expected f32\[3\]",
    ),
    "cotangent of another dtype": (
        lambda: pullback()({"a": None, "b": [jnp.arange(3), None]}),
        r"the result\['b'\]\[0\] of two is int32\[3\], expected f32\[3\]",
    ),
    "cotangent of an integer": (
        lambda: pullback()({"a": None, "b": [None, 1.0]}),
        r"the result\['b'\]\[1\] of two is 1.0 of type float, expected None or zeros of jax.dtypes.float0",
    ),
    "cotangent of a string": (lambda: sg.vjp(cube, 2.0)[1]("x"), "is 'x' of type str, expected f32"),
    "cotangent of a complex number": (lambda: sg.vjp(cube, 2.0)[1](1j), r"is 1j .*expected f32\[\]"),
    "cotangent that is a State": (
        lambda: sg.vjp(cube, 2.0)[1](unused()),
        "is the State 'unused', expected f32",
    ),
    "state_cts unasked for": (lambda: sg.vjp(cube, 2.0)[1](1.0, 1.0), "given state_cts.*final_states"),
    "primals in no tuple": (lambda: sg.jvp(cube, X, X), "primals of jvp.*expected a tuple"),
    "too few tangents": (lambda: sg.jvp(two, (X, 3), (X,)), "must be a tuple of 2.*not 1 of them"),
    "tangent of an integer": (
        lambda: sg.jvp(two, (X, 3), (X, 1)),
        "argument 'n' is 1 of type int, expected None",
    ),
    "tangent of another shape": (
        lambda: sg.jvp(cube, (X,), (jnp.ones(2),)),
        r"the tangent of argument 'x' is float32\[2\], expected f32\[3\]",
    ),
    "tangent of another structure": (
        lambda: sg.jvp(lambda p: p["w"], ({"w": X},), ([X],)),
        r"argument 0 of lambda has the structure \[\*\], expected {'w': \*}",
    ),
    "no tangents": (lambda: sg.jvp(cube, (X,), (None,)), "jvp of cube.*is given no tangent"),
    "no directions": (lambda: sg.hvp(cube, (2.0,)), "hvp of cube.*is given no tangent"),
    "state_tangents of no State": (
        lambda: sg.jvp(cube, (X,), (X,), state_tangents=[X]),
        "but not their States",
    ),
    "too many tangents": (
        lambda: sg.linearize(cube, X)[1](X, X),
        "is given 2 tangents.*expected 1, of argument 0",
    ),
    "state_tangents unasked for": (
        lambda: sg.linearize(cube, X)[1](X, state_tangents=X),
        "given state_tangents",
    ),
    "hvp of a vector": (
        lambda: sg.hvp(cube, (X,), (X,)),
        r"loss that cube returns must be a scalar, not f32\[3\]",
    ),
    "aux missing": (lambda: sg.vjp(cube, 2.0, has_aux=True), "with has_aux=True, cube must return a pair"),
    "no derivative": (
        lambda: sg.vjp(lambda x: jax.lax.while_loop(lambda y: y < 9.0, lambda y: y * 2, x), 2.0),
        "lambda has no such derivative: a `while`.*test_product_errors.py",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_calls(case):
    bad, message = BAD[case]
    with pytest.raises(sg.GradientError, match=f"(?s){message}"):
        bad()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([DW], r"must be a mapping with the keys \['w', 'v'\].*not list"),
        ({"w": DW}, r"must be a mapping with the keys \['w', 'v'\].*not \['w'\]"),
        ({"w": DW, "v": [1.0]}, r"at 'v' must be a list of 2.*not a list of 1"),
        ({"w": DW, "v": (1.0, [2.0])}, r"the tangent of the State 'b' is a list of 1, expected f32\[\]"),
        ({"w": X, "v": None}, r"the tangent of the State 'w' is float32\[3\], expected f32\[2\]"),
    ],
)
def test_bad_containers_of_state_tangents(w, given, message):
    a, b = sg.State(1.0, name="a"), sg.State(1.0, name="b")

    def f(x):
        w.value = w.value * x
        return w.value.sum() * a.value * b.value

    states = {"w": w, "v": [a, b]}
    with pytest.raises(sg.GradientError, match=f"(?s){message}"):
        sg.jvp(f, (2.0,), (1.0,), grad_states=states, state_tangents=given)
    np.testing.assert_array_equal(w.value, W)


def test_two_tangents_for_one_state(w):
    with pytest.raises(sg.GradientError, match="the State 'w' is given two tangents"):
        sg.jvp(lambda: w.value.sum(), (), (), grad_states=[w, w], state_tangents=[DW, DW])


def test_states_stay_as_they_were():
    s = sg.State(1.0, name="s")
    calls = [
        lambda: sg.vjp(lambda x: bad_write(s), 1.0),
        lambda: sg.jvp(lambda x: bad_write(s), (1.0,), (1.0,)),
        lambda: sg.linearize(lambda x: bad_write(s), 1.0),
        lambda: sg.hvp(lambda x: bad_write(s), (1.0,), (1.0,)),
    ]
    for call in calls:
        with pytest.raises(ZeroDivisionError):
            call()
        assert s.value == 1.0
