"""Memory: the temporary bytes of compiled gradients, as XLA plans them (`memory_analysis()`)."""

from collections.abc import Callable
from typing import Any

from .libraries import BASELINE, Jax, Stategrad
from .measure import Cell, Effort, Figure, Missing
from .models import Model
from .running import models
from .table import OURS, Row, Table

COLUMNS: dict[str, Callable[[Model], Any]] = {
    BASELINE: lambda model: Jax().lower(model)(),
    OURS: lambda model: Stategrad().lower(model)(),
}
"""Each way to lower the gradient of a model. Other options of the residuals are further columns here."""


def run(effort: Effort) -> list[Table]:
    """The temporary memory of each model's gradient."""
    rows = [
        Row(model.name, _row(model), 0.35 if "LSTM" in model.name else None) for model, _ in models(effort)
    ]
    return [Table("Temporary memory of compiled value and gradient", tuple(rows), quantity="B")]


def _row(model: Model) -> dict[str, Cell]:
    sizes = {name: _temporary(lower(model)) for name, lower in COLUMNS.items()}
    return {name: _cell(size, sizes[BASELINE]) for name, size in sizes.items()}


def _temporary(lowered: Any) -> int | None:
    found = lowered.compile().memory_analysis()
    return None if found is None else found.temp_size_in_bytes


def _cell(size: int | None, base: int | None) -> Cell:
    if not size or not base:
        return Missing("XLA plans no temporary memory here, or does not say")
    return Figure.of(size / base, base)
