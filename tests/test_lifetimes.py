"""What compiled functions and caches keep alive: nothing that only a function that is gone has held."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import io_callback

import stategrad as sg


class Held:
    """Stands for a model, a data set, a logger that a function closes over."""


def with_debug_callback(held: Held) -> Callable[..., Any]:
    def f(x):
        jax.debug.callback(lambda y: held and None, x)
        return x * 2

    return f


def with_pure_callback(held: Held) -> Callable[..., Any]:
    like = jax.ShapeDtypeStruct((), jnp.float32)
    return lambda x: x * jax.pure_callback(lambda: held and jnp.float32(2), like)


def with_io_callback(held: Held) -> Callable[..., Any]:
    like = jax.ShapeDtypeStruct((), jnp.float32)
    return lambda x: x * io_callback(lambda: held and jnp.float32(2), like)


def with_custom_vjp(held: Held) -> Callable[..., Any]:
    f = jax.custom_vjp(lambda x: x * 2)
    f.defvjp(lambda x: (held and x * 2, None), lambda _, g: (held and g * 2,))
    return f


def with_custom_jvp(held: Held) -> Callable[..., Any]:
    f = jax.custom_jvp(lambda x: x * 2)
    f.defjvp(lambda x, t: (held and x[0] * 2, t[0] * 2))
    return f


def with_state(held: Held) -> Callable[..., Any]:
    state = sg.State(1.0)
    vars_of_state[state] = held

    def f(x):
        state.value = state.value + x
        return state.value

    return f


vars_of_state: weakref.WeakKeyDictionary[sg.State, Held] = weakref.WeakKeyDictionary()


CALLBACKS = [with_debug_callback, with_pure_callback, with_io_callback]
RULES = [with_custom_vjp, with_custom_jvp]


def gradient_in_a_step(f: Callable[..., Any]) -> Callable[..., Any]:
    return sg.jit(sg.grad(f))


@pytest.mark.parametrize(
    ("transform", "make"),
    [
        *((transform, make) for transform in (sg.jit, gradient_in_a_step, sg.grad) for make in CALLBACKS),
        *((gradient_in_a_step, make) for make in RULES),
        *((transform, with_state) for transform in (sg.jit, gradient_in_a_step, sg.grad)),
    ],
)
def test_what_a_function_closes_over_goes_with_it(transform, make):
    held = Held()
    alive, f = weakref.ref(held), make(held)
    del held
    transformed = transform(f)
    jax.block_until_ready(transformed(jnp.float32(1.0)))
    jax.effects_barrier()
    assert alive() is not None
    del f, transformed
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("transform", [sg.jit, sg.grad])
@pytest.mark.parametrize("make", RULES)
def test_few_derivative_rules_stay(transform, make, monkeypatch):
    monkeypatch.setattr("stategrad.ir.opaque._KEPT", 4)
    alive = []
    for _ in range(10):
        held = Held()
        alive.append(weakref.ref(held))
        transform(make(held))(jnp.float32(1.0))
    del held
    gc.collect()
    assert sum(each() is not None for each in alive) <= 4
