"""Dispatch: what a call costs when the arithmetic is next to nothing."""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax

from .libraries import BASELINE, Jax, JaxKept, Library, Stategrad, check_equal, gradients, peers
from .measure import Effort, compare
from .models import Model, many, mlp
from .table import Row, Table

NOTE = "Dispatch is synchronous on CPU: asynchronous clocks do not add up."
_STEPS = "A compiled step that writes its parameters back"
_LARGE = f"{NOTE} Without other libraries, which take minutes to compile it."


def run(effort: Effort) -> list[Table]:
    """Steps, gradients, and a gradient without `jit`."""
    models = [mlp(2, 4, 4), many(effort.pick(200, 8)), mlp(effort.pick(100, 3), 8)]
    largest = [many(1000)] if not effort.tiny else []
    with synchronous():
        steps = [Table(_STEPS, _steps(models, effort, peers()), note=NOTE)]
        if largest:
            steps.append(Table("The same with 1000 arrays", _steps(largest, effort, []), note=_LARGE))
        return [
            *steps,
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


def _steps(models: list[Model], effort: Effort, others: Sequence[Library]) -> tuple[Row, ...]:
    makers = [(m.name, _step_makers(m, others)) for m in models]
    return tuple(Row(name, compare(each, BASELINE, effort), must=1.10) for name, each in makers)


def _gradients(models: list[Model], effort: Effort) -> tuple[Row, ...]:
    libraries = [Jax(), Stategrad(), *peers()]
    return tuple(Row(m.name, compare(gradients(m, libraries), BASELINE, effort), must=1.10) for m in models)


def _uncompiled(effort: Effort) -> tuple[Row, ...]:
    model = mlp(2, 4, 4)
    makers = gradients(model, [Jax(), Stategrad(), *peers()], "uncompiled")
    return (Row(model.name, compare(makers, BASELINE, effort), must=1.5),)


def _step_makers(model: Model, others: Sequence[Library]) -> dict[str, Any]:
    step = JaxKept().step(model)
    truth = (step.call(), step.call(), step.values())

    def make(library: Library) -> Any:
        step = library.step(model)
        check_equal((step.call(), step.call(), step.values()), truth, model.name)
        return step.call

    return {library.name: partial(make, library) for library in (Jax(), JaxKept(), Stategrad(), *others)}
