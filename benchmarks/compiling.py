"""Compiling: what XLA needs for the StableHLO of the programs whose staging is measured."""

from collections.abc import Callable, Iterator
from typing import Any

from .functions import Derivative, hessian_mlp, repeated, third_derivative
from .libraries import BASELINE, Jax, Library, Stategrad
from .measure import Effort, compare_fresh, geometric_mean
from .models import Model, mlp
from .models_sequence import gpt, lstm
from .table import OURS, Row, Table


def run(effort: Effort) -> list[Table]:
    """XLA's time for value and gradient, and for higher derivatives."""
    fewer = Effort(max(1, effort.rounds // 5), 0.0, effort.tiny)  # seconds each
    rows = list(_rows(fewer))
    rows.append(Row("geometric mean", geometric_mean(row.cells for row in rows), must=1.0))
    return [Table("XLA's compile time of the same programs", tuple(rows))]


def _rows(effort: Effort) -> Iterator[Row]:
    models = [mlp(n) for n in effort.pick((4, 64, 256), (2,))]
    models += effort.pick([gpt()], [])
    models.append(lstm(effort.pick(256, 4), effort.pick(64, 4), effort.pick(32, 2)))
    for model in models:
        makers = {library.name: _model(library, model) for library in (Jax(), Stategrad())}
        yield Row(model.name, compare_fresh(makers, BASELINE, effort))
    for derivative in effort.pick(
        [hessian_mlp(), third_derivative(), *map(repeated, range(1, 6))], [repeated(2)]
    ):
        makers = {BASELINE: _derivative(derivative, "theirs"), OURS: _derivative(derivative, "ours")}
        yield Row(derivative.name, compare_fresh(makers, BASELINE, effort))


def _model(library: Library, model: Model) -> Callable[[], Callable[[], Any]]:
    return lambda: _compile(library.lower(model)())


def _derivative(derivative: Derivative, whose: str) -> Callable[[], Callable[[], Any]]:
    return lambda: _compile(getattr(derivative, whose)().lower(*derivative.args))


def _compile(lowered: Any) -> Callable[[], Any]:
    def compile_() -> None:
        lowered.compile()  # what it returns is no array to wait for

    return compile_
