"""flax nnx: values in the `Param`s of a module, with `nnx.jit`, or with `nnx.cached_partial` around it."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from .libraries import RATE, Gradient, Library, Step
from .models import Array, Arrays, Model


class _Holder(nnx.Module):
    def __init__(self, values: Arrays) -> None:
        self.params = nnx.List([nnx.Param(jax.numpy.array(v)) for v in values])

    def values(self) -> Arrays:
        return [p[...] for p in self.params]


def _loss(model: Model) -> Callable[..., Array]:
    return lambda holder, *data: model.loss(holder.values(), *data)


def _step(model: Model) -> Callable[..., Array]:
    loss = _loss(model)

    def step(holder: _Holder, *data: Array) -> Array:
        value, gradients = nnx.value_and_grad(loss)(holder, *data)
        state = nnx.state(holder, nnx.Param)
        nnx.update(holder, jax.tree.map(lambda p, g: p - RATE * g, state, gradients))
        return value

    return step


class Nnx(Library):
    """A module that is an argument of `nnx.jit`."""

    name = "nnx.jit"

    def bound(self, compiled: Any, holder: _Holder) -> Callable[..., Any]:
        """The compiled function on the module."""
        return lambda *data: compiled(holder, *data)

    def step(self, model: Model) -> Step:
        holder = _Holder(model.values)
        call = self.bound(nnx.jit(_step(model)), holder)
        return Step(lambda: call(*model.data), holder.values)

    def gradient(self, model: Model) -> Callable[[], Gradient]:
        call = self.bound(nnx.jit(nnx.value_and_grad(_loss(model))), _Holder(model.values))
        return lambda: call(*model.data)


class NnxJit(Nnx):
    """With lowering, which is the same for both."""

    def lower(self, model: Model) -> Callable[[], Any]:
        holder = _Holder(model.values)
        return lambda: nnx.jit(nnx.value_and_grad(_loss(model))).lower(holder, *model.data)


class NnxCached(Nnx):
    """The module is bound once with `nnx.cached_partial`."""

    name = "nnx.cached_partial"

    def bound(self, compiled: Any, holder: _Holder) -> Callable[..., Any]:
        return nnx.cached_partial(compiled, holder)


LIBRARIES = (NnxJit(), NnxCached())
