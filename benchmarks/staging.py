"""Staging: from a Python function that was never seen before to StableHLO, nothing compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any

from .functions import Derivative, hessian_mlp, repeated, third_derivative
from .libraries import BASELINE, Jax, Stategrad, peers
from .measure import Effort, compare
from .models import mlp
from .models_sequence import gpt, lstm
from .table import OURS, Row, Table

_ORDERS = {1: None, 2: None, 3: None, 4: None, 5: 0.15}


def run(effort: Effort) -> list[Table]:
    """Value and gradient of models, and higher derivatives."""
    once = Effort(effort.rounds, 0.0, effort.tiny)
    return [
        Table("Value and gradient: time to StableHLO", tuple(_models(once)), note=_NOTE),
        Table("Higher derivatives: time to StableHLO", tuple(_derivatives(once)), note=_NOTE),
    ]


_NOTE = "Each time a new closure, as a user's first call has it; the garbage collector is on."


def _models(effort: Effort) -> Any:
    layers = effort.pick((4, 64, 256), (2,))
    models = [(mlp(n), 0.6 if n == 4 else 0.30) for n in layers]
    models += effort.pick([(gpt(), 0.30)], [])
    models.append((lstm(effort.pick(256, 4), effort.pick(64, 4), effort.pick(32, 2)), 0.5))
    for model, must in models:
        libraries = [Jax(), Stategrad(), *peers()]
        calls = {library.name: partial(library.lower, model) for library in libraries}
        yield Row(model.name, compare(calls, BASELINE, effort), must)


def _derivatives(effort: Effort) -> Any:
    rows = [(hessian_mlp(), 0.5), (third_derivative(), 0.3)]
    rows += [(repeated(k), _ORDERS[k]) for k in effort.pick((1, 2, 3, 4, 5), (2,))]
    for derivative, must in rows:
        calls = {BASELINE: _lower(derivative, "theirs"), OURS: _lower(derivative, "ours")}
        yield Row(derivative.name, compare(calls, BASELINE, effort), must)


def _lower(derivative: Derivative, whose: str) -> Callable[[], Callable[[], Any]]:
    return lambda: lambda: getattr(derivative, whose)().lower(*derivative.args)
