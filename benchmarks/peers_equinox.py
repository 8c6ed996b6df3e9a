"""equinox: values in a module that is a pytree, with `filter_jit`; donated in steps."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .libraries import Gradient, Library, Step, descend
from .models import Array, Arrays, Model


class _Holder(eqx.Module):
    values: list[Array]


def _value_and_grad(model: Model) -> Callable[..., Any]:
    return eqx.filter_value_and_grad(lambda holder, *data: model.loss(holder.values, *data))


class Equinox(Library):
    """`filter_value_and_grad` under `filter_jit`."""

    name = "equinox"

    def step(self, model: Model) -> Step:
        held = _Holder([jnp.array(v) for v in model.values])
        gradient = _value_and_grad(model)

        @eqx.filter_jit(donate="all-except-first")
        def step(data: tuple[Array, ...], holder: _Holder) -> tuple[Array, _Holder]:
            loss, gradients = gradient(holder, *data)
            return loss, _Holder(descend(holder.values, gradients.values))

        def call() -> Array:
            nonlocal held
            loss, held = step(model.data, held)
            return loss

        def values() -> Arrays:
            return held.values

        return Step(call, values)

    def gradient(self, model: Model) -> Callable[[], Gradient]:
        held = _Holder(model.values)
        compiled = eqx.filter_jit(_value_and_grad(model))
        return lambda: compiled(held, *model.data)

    def lower(self, model: Model) -> Callable[[], Any]:
        held = _Holder(model.values)
        return lambda: eqx.filter_jit(_value_and_grad(model)).lower(held, *model.data)


LIBRARIES = (Equinox(),)
