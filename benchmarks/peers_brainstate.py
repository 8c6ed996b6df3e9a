"""brainstate: values in `ParamState`s. Its `jit` has no way to donate them."""

from collections.abc import Callable
from typing import Any

import brainstate

from .libraries import RATE, Gradient, Library, Step
from .models import Array, Model


def _stateful(model: Model) -> tuple[list[Any], Callable[..., Array]]:
    states = [brainstate.ParamState(v) for v in model.values]
    return states, lambda *data: model.loss([s.value for s in states], *data)


def _value_and_grad(loss: Callable[..., Array], states: list[Any]) -> Callable[..., Gradient]:
    gradient = brainstate.transform.grad(loss, states, return_value=True)

    def swapped(*data: Array) -> Gradient:
        gradients, value = gradient(*data)
        return value, list(gradients)

    return swapped


class Brainstate(Library):
    """States, `transform.grad` and `transform.jit`."""

    name = "brainstate"

    def step(self, model: Model) -> Step:
        states, loss = _stateful(model)
        gradient = _value_and_grad(loss, states)

        @brainstate.transform.jit
        def step(*data: Array) -> Array:
            value, gradients = gradient(*data)
            for state, g in zip(states, gradients, strict=True):
                state.value = state.value - RATE * g
            return value

        return Step(lambda: step(*model.data), lambda: [s.value for s in states])

    def gradient(self, model: Model) -> Callable[[], Gradient]:
        states, loss = _stateful(model)
        compiled = brainstate.transform.jit(_value_and_grad(loss, states))
        return lambda: compiled(*model.data)

    def uncompiled(self, model: Model) -> Callable[[], Gradient]:
        states, loss = _stateful(model)
        gradient = _value_and_grad(loss, states)
        return lambda: gradient(*model.data)

    def lower(self, model: Model) -> Callable[[], Any]:
        def made() -> Any:
            states, loss = _stateful(model)
            return brainstate.transform.jit(_value_and_grad(loss, states)).lower(*model.data)

        return made


LIBRARIES = (Brainstate(),)
