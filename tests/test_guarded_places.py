"""Places where a function may read a Python value from: when the value changes, so does the program."""

import argparse
import collections
import contextvars
import dataclasses
import enum
import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
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


def closure_of_a_library() -> Place:
    rates = {"lr": 1.0}
    rule = optax.scale_by_schedule(lambda _: rates["lr"])

    def read() -> float:
        updates, _ = rule.update(jnp.float32(1.0), rule.init(jnp.float32(0.0)))
        return updates

    return read, lambda k: rates.update(lr=k)


def settings_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__file__ = __file__
    module.lr = 1.0
    return module


def module_in_a_variable() -> Place:
    settings = settings_module("settings")
    return lambda: settings.lr, lambda k: setattr(settings, "lr", k)


def module_in_an_attribute() -> Place:
    settings = settings_module("settings")
    holder = types.SimpleNamespace(settings=settings)
    return lambda: holder.settings.lr, lambda k: setattr(settings, "lr", k)


def module_imported_inside() -> Place:
    settings = sys.modules["settings_of_a_test"] = settings_module("settings_of_a_test")

    def read() -> float:
        import settings_of_a_test as inside  # pyright: ignore[reportMissingImports]  # noqa: PLC0415

        return inside.lr

    return read, lambda k: setattr(settings, "lr", k)


def name_imported_inside() -> Place:
    settings = sys.modules["names_of_a_test"] = settings_module("names_of_a_test")

    def read() -> float:
        from names_of_a_test import lr  # pyright: ignore[reportMissingImports]  # noqa: PLC0415

        return lr

    return read, lambda k: setattr(settings, "lr", k)


def stored_method_of_a_dict() -> Place:
    table = {"k": 1.0}
    get = table.get
    return lambda: get("k"), lambda k: table.update(k=k)


def stored_operator_of_a_list() -> Place:
    table = [1.0]
    get = table.__getitem__
    return lambda: get(0), lambda k: table.__setitem__(0, k)


def context_variable() -> Place:
    scale = contextvars.ContextVar("scale", default=1.0)
    return lambda: scale.get(), lambda k: scale.set(k)


def context_variable_with_a_list() -> Place:
    scale = contextvars.ContextVar("scale")
    scale.set([1.0])
    return lambda: scale.get()[0], lambda k: scale.get().__setitem__(0, k)


class Term:
    def __init__(self, k: float) -> None:
        self.k = k


def member_of_a_set() -> Place:
    term = Term(1.0)
    terms = {term}
    return lambda: sum(t.k for t in terms), lambda k: setattr(term, "k", k)


def factory_of_a_defaultdict() -> Place:
    rate = 1.0

    def factory() -> float:
        return rate

    table = collections.defaultdict(factory)

    def change(k: float) -> None:
        nonlocal rate
        rate = k

    return lambda: table.copy()["missing"], change


@dataclasses.dataclass(frozen=True)
class Frozen:
    rates: list[float]


class PartlyFrozen(Frozen):
    pass


def list_of_a_frozen_dataclass() -> Place:
    frozen = Frozen([1.0])
    return lambda: frozen.rates[0], lambda k: frozen.rates.__setitem__(0, k)


def attribute_of_a_subclass_of_a_frozen_dataclass() -> Place:
    partly = PartlyFrozen([1.0])
    partly.k = 1.0
    return lambda: partly.k, lambda k: setattr(partly, "k", k)


def metaclass() -> Place:
    class Kind(type):
        k = 1.0

    class Config(metaclass=Kind):
        pass

    return lambda: Config.k, lambda k: setattr(Kind, "k", k)


def operator_method() -> Place:
    class Scale:
        def __mul__(self, other: float) -> float:
            return 1.0 * other

    scale = Scale()
    return lambda: scale * 1.0, lambda k: setattr(Scale, "__mul__", lambda self, other: k * other)


def value_of_an_enum() -> Place:
    class Option(enum.Enum):
        RATES = [1.0]  # noqa: RUF012

    return lambda: Option.RATES.value[0], lambda k: Option.RATES.value.__setitem__(0, k)


def attribute_of_a_state() -> Place:
    class Scaled(sg.State):
        rate: float

    state = Scaled(1.0)
    state.rate = 1.0
    return lambda: state.rate, lambda k: setattr(state, "rate", k)


def class_attribute_of_a_state() -> Place:
    class Scaled(sg.State):
        rate = 1.0

    state = Scaled(1.0)
    return lambda: state.rate, lambda k: setattr(Scaled, "rate", k)


def tag_of_a_state() -> Place:
    state = sg.State(1.0, tag="one")
    return lambda: 1.0 if state.tag == "one" else 5.0, lambda k: setattr(state, "tag", "other")


def column_of_a_large_array() -> Place:
    column = np.ones((1000, 1000))[:, 3]
    return lambda: float(column[501]), lambda k: column.__setitem__(501, k)


def strides_over_a_large_array() -> Place:
    table = np.lib.stride_tricks.as_strided(np.ones(10**6), (10, 10), (80_000, 8))
    return lambda: float(table[4, 7]), lambda k: table.__setitem__((4, 7), k)


def repeated_array() -> Place:
    one = np.ones(3)
    table = np.broadcast_to(one, (10**9, 3))
    return lambda: float(table[17, 1]), lambda k: one.__setitem__(1, k)


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
    closure_of_a_library,
    module_in_a_variable,
    module_in_an_attribute,
    module_imported_inside,
    name_imported_inside,
    stored_method_of_a_dict,
    stored_operator_of_a_list,
    context_variable,
    context_variable_with_a_list,
    member_of_a_set,
    factory_of_a_defaultdict,
    list_of_a_frozen_dataclass,
    attribute_of_a_subclass_of_a_frozen_dataclass,
    metaclass,
    operator_method,
    value_of_an_enum,
    attribute_of_a_state,
    class_attribute_of_a_state,
    tag_of_a_state,
    column_of_a_large_array,
    strides_over_a_large_array,
    repeated_array,
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


def test_what_the_rule_of_a_custom_gradient_reads():
    factor = 1.0
    clipped = jax.custom_vjp(lambda x: x**2)
    clipped.defvjp(lambda x: (x**2, x), lambda x, g: (factor * g * x,))
    gradient = sg.jit(sg.grad(lambda x: clipped(x)))
    assert gradient(3.0) == 3.0
    factor = 5.0
    assert gradient(3.0) == 15.0


def test_a_module_that_the_function_is_the_first_to_import(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("lr = 2.0")
    monkeypatch.syspath_prepend(tmp_path)

    def scaled(x):
        import imported_late  # pyright: ignore[reportMissingImports]  # noqa: PLC0415

        return x * imported_late.lr

    f = sg.jit(scaled)
    assert f(3.0) == f(3.0) == 6.0
    sys.modules["imported_late"].lr = 5.0
    assert f(3.0) == 15.0
