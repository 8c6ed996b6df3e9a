"""Staging: from the Python function to StableHLO of its value and gradient, against JAX's own."""

import jax

import stategrad as sg

from .measure import Ratio, compare
from .models import Model, lstm, mlp

TITLE = "Time to StableHLO of value and gradient (baseline: jax.jit of jax.value_and_grad)"
ROUNDS = 9


def run() -> dict[str, dict[str, Ratio]]:
    """The ratios for each model."""
    return {model.name: _measure(model) for model in (mlp(4), mlp(64), lstm(64))}


def _measure(model: Model) -> dict[str, Ratio]:
    values = [s.value for s in model.states]
    gradient = sg.grad(model.loss, grad_states=model.states, return_value=True)

    def theirs() -> object:
        def fresh(values: list[jax.Array], x: jax.Array) -> object:  # JAX caches by identity
            return jax.value_and_grad(model.pure)(values, x)

        return jax.jit(fresh).lower(values, model.x)

    return compare({"jax": theirs, "stategrad": lambda: gradient.lower(model.x)}, "jax", ROUNDS, 1)
