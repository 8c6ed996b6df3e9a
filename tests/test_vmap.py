"""`vmap` of functions with States: against jax.vmap of pure functions, and State by State."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

from .jacobian_functions import FUNCTIONS, array


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (jnp.shape(x), jnp.result_type(x)) == (jnp.shape(y), jnp.result_type(y))
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5)


# ------------------------------------------------------------------------------------------ pure functions
@pytest.mark.parametrize(("fn", "args"), FUNCTIONS, ids=[fn.__name__ for fn, _ in FUNCTIONS])
def test_pure_functions(fn, args):
    """The last argument is mapped along its last axis, of length 3."""
    *fixed, last = args
    mapped = jnp.stack([last, last * 2, last - 1], -1)
    in_axes = (*[None] * len(fixed), -1)
    found = sg.vmap(fn, in_axes)(*fixed, mapped)
    same(found, jax.jit(jax.vmap(fn, in_axes))(*fixed, mapped))


def several(x, y, k=2.0):
    return {"a": jnp.tanh(x["u"]) * y * k, "b": (x["v"].sum(), y)}


@pytest.mark.parametrize(
    ("in_axes", "out_axes"),
    [
        ((0, None), 0),
        (({"u": 0, "v": None}, None), 0),
        (({"u": None, "v": 0}, 0), {"a": 0, "b": 0}),
        ([0, 0], {"a": -1, "b": (0, 1)}),
        (({"u": 0, "v": 0}, None), {"a": 1, "b": (0, None)}),
    ],
    ids=str,
)
def test_axes(in_axes, out_axes):
    x = {"u": array(3, 3), "v": array(3, 4)}
    y = array(3, 3, seed=1)
    in_axes_jax = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    same(sg.vmap(several, in_axes, out_axes)(x, y), jax.vmap(several, in_axes_jax, out_axes)(x, y))
    k = array(3, seed=2)
    same(sg.vmap(several, in_axes, out_axes)(x, y, k=k), jax.vmap(several, in_axes_jax, out_axes)(x, y, k=k))


def test_nothing_mapped_but_a_size():
    w = sg.State(jnp.ones(2), name="w")
    same(sg.vmap(lambda: w.value * 2, axis_size=3)(), jnp.full((3, 2), 2.0))
    same(sg.vmap(lambda x: x, None, None, axis_size=3)(jnp.ones(2)), jnp.ones(2))
    same(sg.vmap(lambda x: x * 2)(jnp.zeros((0, 2))), jnp.zeros((0, 2)))


# ------------------------------------------------------------------------------------------ States
X = array(3, 2)


def test_shared_states_are_read_and_written_once():
    w, n = sg.State(jnp.array([1.0, 2.0]), name="w"), sg.State(0, name="n")

    def fn(x):
        n.value += 1
        return x @ w.value

    same(sg.vmap(fn)(X), X @ w.value)
    assert n.value == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_own_slices(compiled):
    """Each element runs its own loop over its own slice."""
    s = sg.State({"a": array(3, 2, seed=3), "b": jnp.arange(3.0)}, name="s")
    before = s.value

    def fn(x):
        def step(c, _):
            s.value = {"a": s.value["a"] * c, "b": s.value["b"] + 1}
            return jnp.tanh(c + s.value["a"]), s.value["b"]

        return jax.lax.scan(step, x, None, 4)

    def pure(x, s):
        ys = []
        for _ in range(4):
            s = {"a": s["a"] * x, "b": s["b"] + 1}
            x = jnp.tanh(x + s["a"])
            ys.append(s["b"])
        return (x, jnp.stack(ys)), s

    mapped = sg.vmap(fn, in_states=s)
    found = sg.jit(mapped)(X) if compiled else mapped(X)
    same((found, s.value), jax.vmap(pure)(X, before))


def test_out_states_end_with_a_value_for_each():
    total, seen = sg.State(jnp.zeros(2), name="total"), sg.State(0.0, name="seen")

    def fn(x):
        total.value += x
        seen.value = 1.0
        return x

    sg.vmap(fn, out_states=[total, {"seen": seen}])(X)
    same(total.value, X)
    same(seen.value, jnp.ones(3))


def test_nested():
    s = sg.State(jnp.zeros((3, 2)), name="s")

    def fn(x):
        s.value += x
        return s.value * 2

    same(sg.vmap(sg.vmap(fn, in_states=s), in_states=s)(X), X * 2)
    same(s.value, X)


def test_structure_and_type_of_a_slice_may_change():
    s = sg.State(jnp.zeros((3, 2)), name="s")

    def fn(x):
        s.value = (s.value + x, x.sum().astype(jnp.int32))

    sg.vmap(fn, in_states=s)(X)
    same(s.value, (X, X.sum(1).astype(jnp.int32)))


def test_states_born_inside():
    def fn(x):
        s = sg.State(x)
        s.value *= 2
        return s.value

    same(sg.vmap(fn)(X), X * 2)


def test_random_numbers_differ_between_elements():
    sg.random.seed(0)
    before = sg.random.DEFAULT.value
    drawn = sg.vmap(lambda x: x + sg.random.normal(size=()))(jnp.zeros(5))
    assert len(set(drawn.tolist())) == 5
    assert not np.array_equal(sg.random.DEFAULT.value, before)
    assert sg.random.DEFAULT.value.shape == before.shape
    keys = sg.random.RandomState(1, name="keys")
    keys.value = jax.random.key_data(jax.random.split(jax.random.key(0), 5))
    sg.vmap(lambda: keys.normal(size=()), axis_size=5, in_states=keys)()
    assert keys.value.shape == (5, 2)


# ------------------------------------------------------------------------------------------ around, inside
def test_with_other_transforms():
    w = sg.State(jnp.array([1.0, 2.0]), name="w")

    def fn(x):
        return jnp.sin(x @ w.value)

    def pure(w, x):
        return jnp.sin(x @ w)

    per_example = jax.vmap(jax.grad(pure, (0, 1)), (None, 0))(w.value, X)
    same(sg.vmap(sg.grad(fn, grad_states=w, argnums=0))(X), per_example)
    same(sg.grad(lambda: sg.vmap(fn)(X).sum(), grad_states=w)(), per_example[0].sum(0))
    same(sg.vmap(sg.jacrev(lambda x: x * w.value))(X), jnp.broadcast_to(jnp.diag(w.value), (3, 2, 2)))
    same(sg.jacfwd(sg.vmap(fn), grad_states=w)(X), per_example[0])
    same(jax.jit(sg.vmap(lambda x: x * 2))(X), X * 2)
    same(jax.vmap(sg.vmap(jnp.sin))(X), jnp.sin(X))
    same(jax.grad(lambda x: sg.vmap(jnp.sin)(x).sum())(X), jnp.cos(X))


def test_forms_of_use():
    class Model:
        def __init__(self):
            self.w = sg.State(2.0, name="w")

        @sg.vmap
        def double(self, x):
            return self.w.value * x

        @sg.vmap(in_axes=(1, None), static_argnums=1)
        def power(self, x, n):
            return self.w.value * x**n

    model = Model()
    same(model.power(X[None], 3), 2 * X[:, None] ** 3)
    same(model.double(X), X * 2)
    assert repr(sg.vmap(several)) == "<vmap of several>"
    same(sg.vmap(lambda x, n: x**n, static_argnums=1)(X, 3), X**3)
    assert "ir_call" not in str(sg.vmap(jnp.sin).trace(X).program)


# ------------------------------------------------------------------------------------------ errors
def bad_write(s):
    def fn(x):
        s.value = x

    return fn


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda s: sg.vmap(bad_write(s))(X),
            sg.StateError,
            "State 's', which all elements share, is written",
        ),
        (
            lambda s: sg.vmap(bad_write(s), in_states=s)(X),
            sg.TraceError,
            "argument 'x' has 3, the State 's' has 4",
        ),
        (
            lambda s: sg.vmap(several)({"u": X, "v": X}, jnp.ones(2)),
            sg.TraceError,
            r"x\['u'\].* has 3, argument 'y' has 2",
        ),
        (
            lambda s: sg.vmap(jnp.sin, 2)(X),
            sg.TraceError,
            "in_axes maps axis 2 of argument 'x', which has 2 axes",
        ),
        (lambda s: sg.vmap(jnp.sin, (0, 1))(X), sg.TraceError, r"in_axes of sin = \(0, 1\) does not fit"),
        (lambda s: sg.vmap(lambda x: x, "a")(X), sg.TraceError, "must hold integers and None, not 'a'"),
        (lambda s: sg.vmap(lambda x: x, 0, None)(X), sg.TraceError, "says None for result, which differs"),
        (lambda s: sg.vmap(lambda x: x, 0, 5)(X), sg.TraceError, "maps axis 5 of result"),
        (lambda s: sg.vmap(lambda: 1.0)(), sg.TraceError, "vmap maps nothing"),
        (
            lambda s: sg.vmap(lambda x: x, axis_size=4)(X),
            sg.TraceError,
            "axis_size has 4, argument 'x' has 3",
        ),
        (lambda s: sg.vmap(lambda x: x, in_states=3), sg.GradientError, "in_states holds 3 of type int"),
        (lambda s: sg.vmap(lambda x: "text")(X), sg.TraceError, "result 'result' of lambda is 'text'"),
        (
            lambda s: sg.vmap(lambda x: x, in_states=sg.State(1.0, name="t"))(X),
            sg.StateError,
            "in_states names the State 't', which holds a scalar",
        ),
    ],
)
def test_errors(make, error, message):
    s = sg.State(jnp.zeros((4, 2)), name="s")
    with pytest.raises(error, match=message):
        make(s)
    same(s.value, jnp.zeros((4, 2)))
