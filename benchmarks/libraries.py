"""How a library takes a step, a gradient, or only StableHLO of a model: what every topic asks of each."""

import importlib
from abc import ABC
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import stategrad as sg

from .models import Array, Arrays, Model

RATE = 0.01
BASELINE = "jax"
Gradient = tuple[Array, Arrays]


class Library(ABC):
    """One way to hold a model's arrays and to differentiate it. What a library cannot do raises
    `NotImplementedError` with the reason.
    """

    name: str

    def step(self, model: Model) -> "Step":
        """A compiled step of gradient descent that keeps the new values where this library keeps them."""
        raise NotImplementedError(f"{self.name} has no such step")

    def gradient(self, model: Model) -> Callable[[], Gradient]:
        """A compiled function giving the loss and its gradient; the arrays are at hand."""
        raise NotImplementedError(f"{self.name} has no such gradient")

    def uncompiled(self, model: Model) -> Callable[[], Gradient]:
        """The gradient as the library gives it without `jit`."""
        raise NotImplementedError(f"{self.name} is measured under jit only")

    def lower(self, model: Model) -> Callable[[], Any]:
        """Makes StableHLO of loss and gradient, of a function never seen before; nothing is compiled."""
        raise NotImplementedError(f"{self.name} is measured where it runs only")


class Step:
    """Takes one step when called; gives the loss."""

    def __init__(self, call: Callable[[], Array], values: Callable[[], Arrays]) -> None:
        self.call = call
        self.values = values


def descend(values: Arrays, gradients: Arrays) -> Arrays:
    """The values after a step."""
    return [v - RATE * g for v, g in zip(values, gradients, strict=True)]


class Jax(Library):
    """The limit: pure functions of a list, which is donated and handed on."""

    name = BASELINE
    donate: tuple[int, ...] = (0,)

    def step(self, model: Model) -> Step:
        def step(values: Arrays, *data: Array) -> tuple[Array, Arrays]:
            loss, gradients = jax.value_and_grad(model.loss)(values, *data)
            return loss, descend(values, gradients)

        compiled = jax.jit(step, donate_argnums=self.donate)
        held = [jnp.array(v) for v in model.values]

        def call() -> Array:
            nonlocal held
            loss, held = compiled(held, *model.data)
            return loss

        return Step(call, lambda: held)

    def gradient(self, model: Model) -> Callable[[], Gradient]:
        compiled = jax.jit(jax.value_and_grad(model.loss))
        return lambda: compiled(model.values, *model.data)

    def uncompiled(self, model: Model) -> Callable[[], Gradient]:
        return self.gradient(model)  # `jax.grad` without `jit` runs operation by operation: no baseline

    def lower(self, model: Model) -> Callable[[], Any]:
        def made() -> Any:
            def fresh(values: Arrays, *data: Array) -> Array:
                return model.loss(values, *data)

            return jax.jit(jax.value_and_grad(fresh)).lower(model.values, *model.data)

        return made


class JaxKept(Jax):
    """The same without donation."""

    name = "jax, not donated"
    donate = ()


class Stategrad(Library):
    """This library."""

    name = "stategrad"

    def step(self, model: Model) -> Step:
        states = model.states()
        loss = model.stateful(states)

        @sg.jit
        def step(*data: Array) -> Array:
            gradients, value = sg.grad(loss, grad_states=states, return_value=True)(*data)
            for state, gradient in zip(states, gradients, strict=True):
                state.value = state.value - RATE * gradient
            return value

        return Step(lambda: step(*model.data), lambda: [s.value for s in states])

    def gradient(self, model: Model) -> Callable[[], Gradient]:
        return self._gradient(model, sg.jit)

    def uncompiled(self, model: Model) -> Callable[[], Gradient]:
        return self._gradient(model, lambda fn: fn)

    def _gradient(self, model: Model, jit: Callable[..., Any]) -> Callable[[], Gradient]:
        states = model.states()
        compiled = jit(sg.value_and_grad(model.stateful(states), grad_states=states))
        return lambda: compiled(*model.data)

    def lower(self, model: Model) -> Callable[[], Any]:
        states = model.states()

        def made() -> Any:
            return sg.value_and_grad(model.stateful(states), grad_states=states).lower(*model.data)

        return made


PEERS = ("brainstate", "nnx", "equinox", "refs")
"""The files `peers_*.py`."""


def peers() -> Iterator[Library]:
    """The other libraries, as far as they are installed (extra `bench`)."""
    for name in PEERS:
        try:
            module = importlib.import_module(f"{__package__}.peers_{name}")
        except ImportError:
            continue
        yield from module.LIBRARIES


def check_equal(found: Any, expected: Any, what: str) -> None:
    """Checks that a library computes what the baseline computes.

    Raises:
        ArithmeticError: it does not, so its time would say nothing.
    """
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        if not np.allclose(a, b, rtol=2e-3, atol=1e-5):
            raise ArithmeticError(
                f"{what}: the numbers differ from the baseline's by up to {np.abs(a - b).max()}"
            )


def gradients(model: Model, libraries: Iterable[Library], how: str = "gradient") -> dict[str, Any]:
    """For each library what makes its gradient of the model, and compares that with JAX's."""
    truth = Jax().gradient(model)()

    def make(library: Library) -> Callable[[], Gradient]:
        call = getattr(library, how)(model)
        loss, by_values = call()
        check_equal((loss, jax.tree.leaves(by_values)), truth, model.name)
        return call

    return {library.name: partial(make, library) for library in libraries}
