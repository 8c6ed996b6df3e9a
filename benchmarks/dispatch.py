"""Dispatch: one compiled SGD step that writes its parameters back, against `jax.jit` of a donated list."""

import jax

import stategrad as sg

from .measure import Ratio, compare
from .models import Model, mlp

TITLE = "One compiled SGD step, time of a call (baseline: jax.jit of a list that is donated)"
ROUNDS = 15


def run() -> dict[str, dict[str, Ratio]]:
    """The ratios for each model. Dispatch is synchronous meanwhile: asynchronous clocks do not add up."""
    before = jax.config.read("jax_cpu_enable_async_dispatch")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        return {model.name: _measure(model) for model in (mlp(2, 4), mlp(100, 8))}
    finally:
        jax.config.update("jax_cpu_enable_async_dispatch", before)


def _measure(model: Model) -> dict[str, Ratio]:
    values = [s.value for s in model.states]
    number = max(10, 2000 // len(values))

    @sg.jit
    def ours(x: jax.Array) -> jax.Array:
        gradients, loss = sg.grad(model.loss, grad_states=model.states, return_value=True)(x)
        for state, gradient in zip(model.states, gradients, strict=True):
            state.value = state.value - 0.01 * gradient
        return loss

    def step(values: list[jax.Array], x: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        loss, gradients = jax.value_and_grad(model.pure)(values, x)
        return loss, [v - 0.01 * g for v, g in zip(values, gradients, strict=True)]

    return compare(
        {
            "jax.jit, donated": _threaded(jax.jit(step, donate_argnums=0), values, model.x),
            "jax.jit": _threaded(jax.jit(step), values, model.x),
            "stategrad.jit": lambda: ours(model.x),
        },
        "jax.jit, donated",
        ROUNDS,
        number,
    )


def _threaded(step, values, x):
    held = [jax.numpy.array(v) for v in values]

    def call() -> None:
        nonlocal held
        _, held = step(held, x)

    return call
