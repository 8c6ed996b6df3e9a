"""Copies and pickles of States, Modules and transformed functions: values, names and sharing come along."""

import copy
import pickle
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import stategrad as sg
from stategrad import nn


def pickled(x):
    return pickle.loads(pickle.dumps(x))


TWINS = pytest.mark.parametrize("twin_of", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])


class Counted(sg.State):
    """A State of the user's, with a slot and a private one."""

    __slots__ = ("__secret", "notes")

    def __init__(self, value, notes):
        super().__init__(value, tag="counted")
        self.notes = notes
        self.__secret = 7

    def secret(self):
        return self.__secret


class Loose(sg.ParamState):
    """A State of the user's without slots."""


VALUES = {
    "a number": 2.5,
    "an array": np.arange(6.0, dtype=np.float32).reshape(2, 3),
    "integers": np.array([1, 2], np.int8),
    "bfloat16": np.array([1.5, 2.0], ml_dtypes.bfloat16),
    "complex": np.complex64(1 + 2j),
    "empty": np.zeros((0, 3), np.float32),
    "a pytree": {"w": np.ones(2, np.float32), "deep": (1, [np.zeros(()), None])},
    "functions in it": {"w": np.ones(2, np.float32), "act": len, "name": "gelu"},
}


@TWINS
@pytest.mark.parametrize("name", VALUES)
def test_values(name, twin_of):
    state = sg.ParamState(VALUES[name], name="s", tag="t")
    twin = twin_of(state)
    assert type(twin) is sg.ParamState and (twin.name, twin.tag) == ("s", "t") and repr(twin) == repr(state)
    assert jax.tree.structure(twin.value) == jax.tree.structure(state.value)
    for found, expected in zip(jax.tree.leaves(twin.value), jax.tree.leaves(state.value), strict=True):
        if isinstance(expected, jax.Array):
            assert isinstance(found, jax.Array) and jax.typeof(found) == jax.typeof(expected)
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
        else:
            assert found == expected
    twin.value = 0.0
    assert repr(twin) != repr(state) or name == "a number"


@TWINS
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys(impl, twin_of):
    keys = sg.State({"one": jax.random.key(3, impl=impl), "more": jax.random.split(jax.random.key(1), 2)})
    twin = twin_of(keys)
    draws = [jax.random.normal(s.value["one"], (3,)) for s in (keys, twin)]
    np.testing.assert_array_equal(*draws)
    assert jax.random.key_impl(twin.value["one"]) == jax.random.key_impl(keys.value["one"])
    np.testing.assert_array_equal(*[jax.random.key_data(s.value["more"]) for s in (keys, twin)])


@TWINS
def test_random_states_go_on_where_they_were(twin_of):
    rng = sg.random.RandomState(5)
    rng.normal()
    twin = twin_of(rng)
    assert type(twin) is sg.random.RandomState and float(twin.normal()) == float(rng.normal())


@TWINS
def test_subclasses(twin_of):
    state = Counted(1.0, ["a"])
    twin = twin_of(state)
    assert twin.notes == ["a"] and twin.notes is not state.notes
    assert (twin.secret(), twin.tag, twin.name) == (7, "counted", state.name)
    loose = Loose(2.0)
    loose.rate = 0.1
    assert twin_of(loose).rate == 0.1 and twin_of(loose).value == 2.0
    assert copy.copy(state).notes is state.notes


class Tied(nn.Module):
    def __init__(self):
        self.encode = nn.Linear(3, 3)
        self.decode = self.encode.weight
        self.layers = [nn.BatchNorm(3), {"drop": nn.Dropout(0.5, rng=sg.random.RandomState(1))}]
        self.activation, self.more = jnp.tanh, (jax.nn.relu, {"f": [jnp.add, square]})
        self.scale = 2.0
        self.compiled = sg.jit(self.forward)

    def forward(self, x):
        y = self.activation(self.encode(x)) @ self.decode.value.T * self.scale
        return self.layers[1]["drop"](self.layers[0](y, training=True), training=True)

    @sg.jit
    def step(self, x):
        return self.forward(x).sum()

    def slope(self, x):
        return sg.grad(self.step, grad_states=self.states(sg.ParamState))(x)


@TWINS
def test_modules(twin_of):
    model = Tied()
    x = jnp.ones((2, 3)) * jnp.arange(3.0)
    model.step(x), model.compiled(x)
    twin = twin_of(model)
    assert twin.decode is twin.encode.weight and twin.decode is not model.decode
    assert repr(twin) == repr(model) and twin.more == model.more and twin.decode.name == model.decode.name
    before = [np.asarray(s.value) for s in model.states().values()]
    found = twin.step(x), twin.compiled(x), twin.slope(x)
    for state, value in zip(model.states().values(), before, strict=True):
        np.testing.assert_array_equal(state.value, value)
    expected = model.step(x), model.compiled(x), model.slope(x)
    jax.tree.map(np.testing.assert_allclose, found, expected)
    for one, other in zip(model.states().values(), twin.states().values(), strict=True):
        np.testing.assert_allclose(one.value, other.value)


def test_sharing_between_objects_in_one_pickle():
    w = sg.State(1.0, name="w")
    a, (b, c) = pickled([w, (w, [w])])
    assert a is b and c[0] is a and a is not w


def test_in_another_process(tmp_path):
    (tmp_path / "their_models.py").write_text(
        textwrap.dedent(
            """
            import jax.numpy as jnp
            import stategrad as sg
            from stategrad import nn

            class Mine(sg.ParamState):
                __slots__ = ("unit",)

            class Net(nn.Module):
                def __init__(self):
                    self.a = nn.Linear(2, 2, rng=sg.random.RandomState(0))
                    self.tied = self.a.weight
                    self.own = Mine({"k": 3.0})
                    self.own.unit = "mV"

                @sg.jit
                def __call__(self, x):
                    return self.a(x) @ self.tied.value * self.own.value["k"]

            @sg.jit
            def twice(x):
                return 2 * x
            """
        )
    )
    run = [sys.executable, "-c"]
    write = (
        "import pickle, their_models as m; n = m.Net();"
        "pickle.dump((n, m.twice, float(n(m.jnp.ones(2)).sum())), open('net.pickle', 'wb'))"
    )
    read = (
        "import pickle; n, f, y = pickle.load(open('net.pickle', 'rb'));"
        "import numpy as np, their_models as m; assert f is m.twice and f(2.0) == 4.0;"
        "np.testing.assert_allclose(float(n(m.jnp.ones(2)).sum()), y, rtol=1e-6);"
        "assert n.tied is n.a.weight and n.own.unit == 'mV' and type(n.own) is m.Mine;"
        "print(sorted(s.name for s in n.states().values()))"
    )
    path = ":".join([str(tmp_path), *sys.path])
    for program in (write, read):
        done = subprocess.run(
            [*run, program],
            cwd=tmp_path,
            env={"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert done.stdout == "['a.bias', 'a.weight', 'own']\n"


def square(x, n=2):
    return x**n


@sg.grad
def cube(x):
    return x**3


TRANSFORMS = {
    "jit": lambda: sg.jit(square),
    "jit with options": lambda: sg.jit(square, static_argnames="n", donate=False),
    "grad": lambda: sg.grad(square, argnums=0),
    "value_and_grad": lambda: sg.value_and_grad(square),
    "hessian": lambda: sg.hessian(square),
    "fwd_grad": lambda: sg.fwd_grad(square, key=0),
    "GradientTransform": lambda: sg.GradientTransform(target=square, transform=jax.grad),
    "checkpoint": lambda: sg.checkpoint(square),
    "of each other": lambda: sg.jit(sg.grad(sg.grad(square))),
}


@TWINS
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformed_functions(name, twin_of):
    made = TRANSFORMS[name]()
    twin = twin_of(made)
    assert twin is not made and type(twin) is type(made)
    np.testing.assert_allclose(twin(3.0), made(3.0))


@TWINS
def test_mapped_functions_and_decorated_ones(twin_of):
    np.testing.assert_allclose(twin_of(sg.vmap(square))(jnp.ones(2)), jnp.ones(2))
    assert twin_of(cube) is cube


def test_states_of_traces_are_not_pickled():
    s = sg.State(1.0, name="s")
    kept = []

    @sg.jit
    def inside():
        kept.append(sg.State(2.0, name="inner"))
        return s.value

    inside()
    with pytest.raises(sg.StateError, match="'inner' was created inside a traced function"):
        pickle.dumps(kept[0])
    with pytest.raises(sg.StateError, match="the State 's' is pickled inside a traced function"):
        sg.jit(lambda: pickle.dumps(s) and s.value)()
    made = sg.jit(lambda: pickle.loads(text).value * 2)
    text = pickle.dumps(s)
    assert made() == 2.0


def test_a_module_with_functions_of_jax():
    net = nn.Sequential(nn.Linear(2, 3), jnp.tanh, jax.nn.relu, nn.Linear(3, 1))
    x = jnp.ones((4, 2))
    for twin in (copy.deepcopy(net), pickled(net), copy.copy(net)):
        assert twin.layers[1] is jnp.tanh and twin.layers[2] is jax.nn.relu
        np.testing.assert_array_equal(twin(x), net(x))
    assert copy.copy(net).layers is net.layers
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(nn.Sequential(lambda x: x))


def test_a_state_that_is_in_use_is_set_to_what_was_pickled():
    s = sg.State(jnp.zeros(2), name="s")
    before = s.__getstate__()
    add = sg.jit(lambda x: setattr(s, "value", s.value + x))
    add(1.0)
    add(1.0)
    s.__setstate__(before)
    np.testing.assert_array_equal(s.value, [0.0, 0.0])
    add(5.0)
    np.testing.assert_array_equal(s.value, [5.0, 5.0])
