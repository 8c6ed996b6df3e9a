"""Dispatch: what a call costs when the arithmetic is next to nothing."""

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np

from .libraries import BASELINE, Jax, JaxKept, Library, Stategrad, check_equal, gradients, peers
from .measure import Effort, compare
from .models import Model, many, mlp
from .table import Row, Table

NOTE = "Dispatch is synchronous on CPU: asynchronous clocks do not add up."
_STEPS = "A compiled step that writes its parameters back"


def run(effort: Effort) -> list[Table]:
    """Steps, gradients, and a gradient without `jit`."""
    models = [mlp(2, 4, 4), many(effort.pick(200, 8)), mlp(effort.pick(100, 3), 8)]
    with synchronous():
        return [
            Table(_STEPS, _steps([*models, many(effort.pick(1000, 16))], effort), note=NOTE),
            Table("A compiled gradient, nothing written", _gradients(models, effort), note=NOTE),
            Table("`grad` called without `jit`, against `jax.jit(jax.grad)`", _uncompiled(effort), note=NOTE),
        ]


@contextlib.contextmanager
def synchronous() -> Iterator[None]:
    """Calls return when the CPU has computed; other devices stay asynchronous and are waited for."""
    before = jax.config.read("jax_cpu_enable_async_dispatch")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        yield
    finally:
        jax.config.update("jax_cpu_enable_async_dispatch", before)


def _steps(models: list[Model], effort: Effort) -> tuple[Row, ...]:
    return tuple(Row(m.name, compare(_step_makers(m), BASELINE, effort), must=1.10) for m in models)


def _gradients(models: list[Model], effort: Effort) -> tuple[Row, ...]:
    libraries = [Jax(), Stategrad(), *peers()]
    return tuple(Row(m.name, compare(gradients(m, libraries), BASELINE, effort), must=1.10) for m in models)


def _uncompiled(effort: Effort) -> tuple[Row, ...]:
    model = mlp(2, 4, 4)
    makers = gradients(model, [Jax(), Stategrad(), *peers()], "uncompiled")
    return (Row(model.name, compare(makers, BASELINE, effort), must=1.5),)


def _step_makers(model: Model) -> dict[str, Any]:
    truth: list[Any] = []

    def make(library: Library) -> Any:
        step = library.step(model)
        found = jax.tree.map(np.array, (step.call(), step.call(), step.values()))
        truth.append(found)  # the first is the baseline's
        check_equal(found, truth[0], model.name)
        return step.call

    return {library.name: partial(make, library) for library in (Jax(), JaxKept(), Stategrad(), *peers())}
