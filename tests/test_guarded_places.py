"""Places where a function may read a Python value from: when the value changes, so does the program."""

import argparse
import collections
import functools
import types
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

Place = tuple[Callable[[], float], Callable[[float], Any]]
"""Reads the value, and changes it."""


def class_container() -> Place:
    class Config:
        weights: dict[str, float] = {"l2": 1.0}  # noqa: RUF012

    return lambda: Config.weights["l2"], lambda k: Config.weights.update(l2=k)


def class_container_of_a_method() -> Place:
    class Layer(sg.nn.Module):
        rates: list[float] = [1.0]  # noqa: RUF012

        def rate(self) -> float:
            return self.rates[0]

    layer = Layer()
    return lambda: layer.rate(), lambda k: Layer.rates.__setitem__(0, k)


def class_in_a_class() -> Place:
    class Outer:
        class Inner:
            k = 1.0

    return lambda: Outer.Inner.k, lambda k: setattr(Outer.Inner, "k", k)


def class_array() -> Place:
    class Config:
        table = np.ones(3)

    return lambda: float(Config.table[1]), lambda k: Config.table.__setitem__(1, k)


def library_object() -> Place:
    args = argparse.Namespace(lr=1.0)
    return lambda: args.lr, lambda k: setattr(args, "lr", k)


def library_object_in_an_object() -> Place:
    args = argparse.Namespace(inner=argparse.Namespace(lr=[1.0]))
    return lambda: args.inner.lr[0], lambda k: args.inner.lr.__setitem__(0, k)


def function_attribute() -> Place:
    def scale() -> float:
        return scale.k

    scale.k = 1.0
    return scale, lambda k: setattr(scale, "k", k)


def keyword_of_a_partial() -> Place:
    read = functools.partial(lambda k: k, k=1.0)
    return read, lambda k: read.keywords.update(k=k)


def attribute_of_a_dict() -> Place:
    class Options(dict):
        pass

    options = Options()
    options.k = 1.0
    return lambda: options.k, lambda k: setattr(options, "k", k)


def class_attribute_of_a_named_tuple() -> Place:
    class Pair(collections.namedtuple("Pair", "a b")):
        k = 1.0

    pair = Pair(1, 2)
    return lambda: pair.k, lambda k: setattr(Pair, "k", k)


def user_dict() -> Place:
    options = collections.UserDict(k=1.0)
    return lambda: options["k"], lambda k: options.update(k=k)


def chain_map() -> Place:
    options = collections.ChainMap({}, {"k": 1.0})
    return lambda: options["k"], lambda k: options.update(k=k)


def mapping_proxy() -> Place:
    inside = {"k": 1.0}
    options = types.MappingProxyType(inside)
    return lambda: options["k"], lambda k: inside.update(k=k)


def array_of_objects() -> Place:
    options = np.array([{"k": 1.0}], dtype=object)
    return lambda: options[0]["k"], lambda k: options[0].update(k=k)


PLACES = [
    class_container,
    class_container_of_a_method,
    class_in_a_class,
    class_array,
    library_object,
    library_object_in_an_object,
    function_attribute,
    keyword_of_a_partial,
    attribute_of_a_dict,
    class_attribute_of_a_named_tuple,
    user_dict,
    chain_map,
    mapping_proxy,
    array_of_objects,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("transform", [sg.jit, lambda f: sg.jit(sg.grad(f))], ids=["jit", "jit of grad"])
def test_a_changed_value_is_seen(place, transform):
    read, change = place()
    f = transform(lambda x: jnp.sum(x) * read())
    x = jnp.arange(3.0)
    before = np.asarray(f(x))
    np.testing.assert_array_equal(f(x), before)
    assert len(f.explain().splitlines()) == 1, f.explain()
    change(5.0)
    np.testing.assert_array_equal(f(x), 5 * before)
    np.testing.assert_array_equal(f(x), 5 * before)
    assert len(f.explain().splitlines()) == 2, f.explain()
