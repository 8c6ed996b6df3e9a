"""`StateFinder` and `eval_shape`: looking at a function changes nothing."""

import jax
import jax.numpy as jnp
import pytest

import stategrad as sg
from stategrad.transform import StateFinder, eval_shape, for_loop


@pytest.fixture
def used():
    scale, offset = sg.ParamState(1.5, name="scale"), sg.ParamState(-0.2, name="offset", tag="bias")
    cache, other = sg.State(0.0, name="cache"), sg.State({"a": 1, "b": jnp.ones(2)}, name="other")

    def energy(x):
        shifted = x * scale.value + offset.value
        scale.value = scale.value + 0.0
        for_loop(lambda y: setattr(cache, "value", cache.value + y + other.value["b"].sum()), shifted)
        return jnp.sum(shifted**2)

    return energy, {"scale": scale, "offset": offset, "cache": cache, "other": other}


def names(found):
    if isinstance(found, dict):
        return {key: names(state) for key, state in found.items()}
    return found.name if isinstance(found, sg.State) else type(found)(map(names, found))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: "scale", 1: "offset", 2: "cache", 3: "other"}),
        ({"filter": sg.ParamState}, {0: "scale", 1: "offset"}),
        ({"filter": "bias"}, {0: "offset"}),
        ({"filter": ["bias", lambda path, state: path == ("cache",)]}, {0: "offset", 1: "cache"}),
        ({"filter": False}, {}),
        ({"filter": ...}, {0: "scale", 1: "offset", 2: "cache", 3: "other"}),
        ({"usage": "read", "return_type": "list"}, ["offset", "other"]),
        ({"usage": "write", "return_type": "tuple"}, ("scale", "cache")),
        ({"usage": "both"}, {"read": {0: "offset", 1: "other"}, "write": {0: "scale", 1: "cache"}}),
        (
            {"usage": "both", "return_type": "list", "filter": sg.ParamState},
            {"read": ["offset"], "write": ["scale"]},
        ),
        ({"key_fn": lambda i, s: s.name[0]}, {"s": "scale", "o": "offset", "c": "cache", "o_1": "other"}),
        ({"key_fn": lambda i, s: None, "usage": "write"}, {"scale": "scale", "cache": "cache"}),
        ({"key_fn": lambda i, s: [i], "usage": "read"}, {"[0]": "offset", "[1]": "other"}),
        ({"key_fn": lambda i, s: "k"}, {"k": "scale", "k_1": "offset", "k_2": "cache", "k_3": "other"}),
    ],
)
def test_state_finder(used, options, expected):
    energy, states = used
    before = {name: jax.tree.map(float, jax.tree.map(jnp.sum, s.value)) for name, s in states.items()}
    assert names(StateFinder(energy, **options)(jnp.ones(2))) == expected
    assert {n: jax.tree.map(float, jax.tree.map(jnp.sum, s.value)) for n, s in states.items()} == before


def test_found_states_are_those_to_differentiate_by(used):
    energy, _ = used
    found = StateFinder(energy, filter=sg.ParamState)(jax.ShapeDtypeStruct((2,), jnp.float32))
    gradients, value = sg.grad(energy, grad_states=found, return_value=True)(jnp.array([1.0, 3.0]))
    assert value == pytest.approx(20.18)
    assert gradients == {0: pytest.approx(28.4), 1: pytest.approx(11.2)}


def test_states_that_change_their_type_and_states_from_inside():
    s = sg.State(1.0, name="s")

    def fn(x):
        local = sg.State(x, name="local")
        local.value += 1
        s.value = jnp.ones(3) * local.value

    assert names(StateFinder(fn, usage="both", return_type="list")(2.0)) == {"read": [], "write": ["s"]}
    assert s.value == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"usage": "reads"},
            "usage of StateFinder is 'reads', expected one of 'all', 'read', 'write', 'both'",
        ),
        (
            {"return_type": "set"},
            "return_type of StateFinder is 'set', expected one of 'dict', 'list', 'tuple'",
        ),
        ({"filter": 3}, "3 is no filter"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        StateFinder(lambda: None, **options)


def test_eval_shape():
    s = sg.State(jnp.zeros(3, jnp.float32), name="s")

    def fn(x, *, key):
        s.value = s.value + x
        return {"s": s.value, "key": jax.random.split(key, 2), "none": None}, x.astype(int)

    x = jax.ShapeDtypeStruct((3,), jnp.float32)
    (first, second), expected = (
        eval_shape(fn, x, key=jax.random.key(0)),
        jax.eval_shape(
            lambda x, key: ({"s": x, "key": jax.random.split(key, 2), "none": None}, x.astype(int)),
            x,
            jax.random.key(0),
        ),
    )
    assert jax.tree.map(lambda t: (t.shape, t.dtype), (first, second)) == jax.tree.map(
        lambda t: (t.shape, t.dtype), expected
    )
    assert isinstance(second, jax.ShapeDtypeStruct)
    assert not s.value.any()
    with pytest.raises(sg.TraceError, match="argument 'x'"):
        eval_shape(fn, "text", key=jax.random.key(0))
