"""Depth: how the time to StableHLO grows with the number of layers."""

import time
from collections.abc import Sequence

import numpy as np

from .libraries import BASELINE, Jax, Library, Stategrad
from .measure import Cell, Effort, Figure, Missing
from .models import mlp
from .table import OURS, Row, Table

TIME = "Time to StableHLO by depth, in seconds"


def run(effort: Effort) -> list[Table]:
    """Seconds for each number of layers, and the exponent of a power law fitted to them."""
    layers = effort.pick((125, 250, 500, 1000, 2000), (2, 4))
    times = {
        OURS: [_seconds(Stategrad(), n, effort) for n in layers],
        BASELINE: [_seconds(Jax(), n, effort) for n in layers if n <= 1000],  # it is the slower one
    }
    rows = [Row(f"{n} layers", {name: _cell(times[name], i) for name in times}) for i, n in enumerate(layers)]
    exponent = {name: Figure.of(_slope(layers, found)) for name, found in times.items()}
    rows.append(Row("exponent", exponent, must=1.05))
    return [Table(TIME, tuple(rows), quantity="")]


def _seconds(library: Library, layers: int, effort: Effort) -> float:
    """The fastest of a few: growth is the program's, not the machine's."""
    lower = library.lower(mlp(layers))
    found = []
    for _ in range(min(3, effort.rounds)):
        start = time.perf_counter()
        lower()
        found.append(time.perf_counter() - start)
    return min(found)


def _cell(found: Sequence[float], i: int) -> Cell:
    return Figure.of(found[i]) if i < len(found) else Missing("only measured up to 1,000 layers")


def _slope(layers: Sequence[int], seconds: Sequence[float]) -> float:
    return float(np.polyfit(np.log(layers[: len(seconds)]), np.log(seconds), 1)[0])
