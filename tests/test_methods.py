"""Transformed methods: numbers and axes count the arguments after self, and objects live no longer for it."""

import copy
import dataclasses
import gc
import pickle
import sys
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

X, Y, N = jnp.array([1.0, 2.0]), 3.0, 2


class Model:
    """Every transform as a decorator; `raw` is the method without."""

    def __init__(self):
        self.w = sg.State(2.0, name="w")

    def raw(self, x, y, n):
        return jnp.sum(self.w.value * x**n) * y**2

    grad_first = sg.grad(argnums=0, static_argnums=2)(raw)
    grad_second = sg.grad(argnums=1, static_argnums=2)(raw)
    grad_both = sg.grad(argnums=(1, 0), static_argnums=np.int32(2))(raw)
    grad_negative = sg.grad(argnums=-2, static_argnums=-1)(raw)
    grad_numpy = sg.grad(argnums=np.int64(1), static_argnames="n")(raw)
    value_and_grad = sg.value_and_grad(argnums=[1], static_argnums=(2,))(raw)
    vector = sg.vector_grad(argnums=1, static_argnums=2)(raw)
    forward = sg.fwd_grad(argnums=1, static_argnums=2, key=0)(raw)
    jacobian = sg.jacrev(argnums=1, static_argnums=2)(raw)
    pushed = sg.jacfwd(argnums=(0, 1), static_argnums=2)(raw)
    curvature = sg.hessian(argnums=1, static_argnums=2)(raw)
    transformed = sg.GradientTransform(raw, jax.grad, argnums=1, static_argnums=2)
    compiled = sg.jit(static_argnums=2)(raw)
    checkpointed = sg.checkpoint(static_argnums=2)(raw)
    mapped = sg.vmap(in_axes=(0, None, None), static_argnums=2)(raw)
    mapped_second = sg.vmap(in_axes=[None, np.int64(0), None], static_argnums=-1)(raw)


DECORATED = {
    "grad_first": lambda f: sg.grad(f, argnums=0, static_argnums=2),
    "grad_second": lambda f: sg.grad(f, argnums=1, static_argnums=2),
    "grad_both": lambda f: sg.grad(f, argnums=(1, 0), static_argnums=2),
    "grad_negative": lambda f: sg.grad(f, argnums=1, static_argnums=2),
    "grad_numpy": lambda f: sg.grad(f, argnums=1, static_argnums=2),
    "value_and_grad": lambda f: sg.value_and_grad(f, argnums=[1], static_argnums=2),
    "vector": lambda f: sg.vector_grad(f, argnums=1, static_argnums=2),
    "forward": lambda f: sg.fwd_grad(f, argnums=1, static_argnums=2, key=0),
    "jacobian": lambda f: sg.jacrev(f, argnums=1, static_argnums=2),
    "pushed": lambda f: sg.jacfwd(f, argnums=(0, 1), static_argnums=2),
    "curvature": lambda f: sg.hessian(f, argnums=1, static_argnums=2),
    "transformed": lambda f: sg.GradientTransform(f, jax.grad, argnums=1, static_argnums=2),
    "compiled": lambda f: sg.jit(f, static_argnums=2),
    "checkpointed": lambda f: sg.checkpoint(f, static_argnums=2),
}


def same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_allclose, found, expected)


@pytest.mark.parametrize("name", DECORATED)
def test_a_decorator_is_the_transform_of_the_bound_method(name):
    model = Model()
    same(getattr(model, name)(X, Y, N), DECORATED[name](model.raw)(X, Y, N))


def test_by_an_independent_gradient():
    model = Model()

    def loss(x, y):
        return jnp.sum(2.0 * x**2) * y**2

    same(model.grad_first(X, Y, N), jax.grad(loss)(X, Y))
    same(model.grad_second(X, Y, N), jax.grad(loss, 1)(X, Y))
    same(model.grad_both(X, Y, N), jax.grad(loss, (1, 0))(X, Y))
    same(model.grad_numpy(X, Y, n=N), jax.grad(loss, 1)(X, Y))
    same(model.mapped(X, Y, N), 2.0 * X**2 * Y**2)
    same(model.mapped_second(X, jnp.array([1.0, 3.0, 4.0]), N), 10.0 * jnp.array([1.0, 9.0, 16.0]))


def test_numbers_out_of_range():
    class Wrong:
        @sg.grad(argnums=2)
        def loss(self, x, y):
            return x * y

        @sg.jit(static_argnums=2)
        def step(self, x, n):
            return x * n

        @sg.vmap(in_axes=(None, 0))
        def mapped(self, x):
            return x

    with pytest.raises(sg.GradientError, match=r"argument 2 of loss, .* 2 positional .*after self"):
        Wrong().loss(1.0, 2.0)
    with pytest.raises(sg.TraceError, match=r"names argument 2, but step has 2: \(x, n\)"):
        Wrong().step(1.0, 2)
    with pytest.raises(sg.TraceError, match=r"in_axes of mapped = \(None, 0\) does not fit"):
        Wrong().mapped(X)
    with pytest.raises(sg.TraceError, match=r"static_argnums must be an integer or several, not 1.5"):
        sg.jit(lambda x, n: x, static_argnums=1.5)


def test_a_negative_static_number_behind_a_star():
    joined = sg.jit(lambda *rest: sum(rest[:-1]) * len(rest[-1]), static_argnums=-1)
    assert joined(2.0, "abc") == 6.0 and joined(2.0, 3.0, "ab") == 10.0


class Stepper(sg.nn.Module):
    def __init__(self):
        self.n = sg.State(0)

    @sg.jit
    def step(self, x):
        self.n.value += 1
        return x * 2

    @sg.grad
    def slope(self, x):
        return x**2 + 0.0 * self.n.value

    @classmethod
    @sg.jit
    def named(cls, x):
        return x + len(cls.__name__)

    @staticmethod
    @sg.jit
    def plain(x):
        return x + 1


def test_objects_are_not_kept_alive():
    stepper = Stepper()
    stepper.step(1.0), stepper.slope(1.0)
    dead = weakref.ref(stepper), weakref.ref(stepper.n)
    del stepper
    gc.collect()
    assert [r() for r in dead] == [None, None]


def test_a_method_keeps_its_object():
    step = Stepper().step
    gc.collect()
    assert step(3.0) == 6.0 and step(3.0) == 6.0


def test_one_function_for_each_object():
    one, two = Stepper(), Stepper()
    assert one.step is one.step and one.step is not two.step
    one.step(1.0), one.step(1.0), two.step(1.0)
    assert (one.n.value, two.n.value) == (2, 1)
    assert one.step.explain().count("\n") == 0  # traced once
    assert Stepper.plain(1.0) == 2.0 and one.plain(1.0) == 2.0
    if sys.version_info < (3, 13):
        assert Stepper.named(1.0) == 8.0
    else:  # Python hands the class to what `classmethod` wraps, as an argument; jax.jit has it there too
        with pytest.raises(sg.TraceError, match="argument 'cls' of named"):
            Stepper.named(1.0)
    assert list(one.states()) == [("n",)] and repr(one) == repr(two)


@pytest.mark.parametrize("twin_of", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_has_methods_of_its_own(twin_of):
    one = Stepper()
    one.step(1.0)
    twin = twin_of(one)
    assert twin.step is not one.step
    before = int(one.n.value)
    twin.step(1.0)
    assert twin.n.value == 2
    assert one.n.value == (2 if twin.n is one.n else before)


def test_frozen_objects_and_slots():
    @dataclasses.dataclass(frozen=True)
    class Frozen:
        k: float

        @sg.grad
        def loss(self, x):
            return self.k * x**2

    class Slots:
        __slots__ = ("k",)

        @sg.jit
        def step(self, x):
            return x

    assert Frozen(2.0).loss(3.0) == 12.0
    with pytest.raises(
        sg.TraceError, match=r'a Slots cannot keep its transformed methods.*only __slots__; add "__dict__"'
    ):
        Slots().step(1.0)
