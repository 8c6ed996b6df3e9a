"""Interleaved timing: what is compared runs in turns, so that a busy machine slows all of it alike."""

import gc
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        rounds: how often everything has its turn.
        block: the seconds that the baseline runs for in one turn.
        tiny: the smallest sizes: to see that a benchmark works, not how fast anything is.
    """

    rounds: int
    block: float
    tiny: bool = False

    def pick(self, full: Any, tiny: Any) -> Any:
        """A size of the real measurement, or one to try it."""
        return tiny if self.tiny else full


FULL = Effort(rounds=15, block=0.01)
TINY = Effort(rounds=1, block=0.0, tiny=True)


@dataclass(frozen=True)
class Figure:
    """A quantity as a multiple of a baseline: median and quartiles over rounds.

    Attributes:
        base: the median of the baseline, in seconds or bytes.
    """

    value: float
    low: float
    high: float
    base: float

    @staticmethod
    def of(value: float, base: float = math.nan) -> "Figure":
        """A quantity that does not scatter."""
        return Figure(value, value, value, base)

    def __str__(self) -> str:
        shown = f"{self.value:.2f}"
        return shown if self.low == self.high else f"{shown} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Missing:
    """Why there is no figure."""

    reason: str


Cell = Figure | Missing
Calls = Mapping[str, Callable[[], Any]]
Makers = Mapping[str, Callable[[], Callable[[], Any]]]


def compare(makers: Makers, baseline: str, effort: Effort) -> dict[str, Cell]:
    """Times calls, each many times in a row, all of them in turns. A maker prepares the call, and checks it.

    What fails gets a reason for its figure, except the baseline and stategrad, which must not fail.
    """
    calls, failed = _made(makers, baseline)
    number = max(1, round(effort.block / min(_seconds(calls[baseline], 1) for _ in range(3))))
    timers = {name: partial(_each, call, number) for name, call in calls.items()}
    return _in_order(makers, failed | _rounds(timers, baseline, effort.rounds))


def compare_fresh(makers: Makers, baseline: str, effort: Effort) -> dict[str, Cell]:
    """Times calls that count once only, such as compiling: a maker gives a new one for each round."""
    calls, failed = _made(makers, baseline)
    timers = {name: partial(_fresh, makers[name]) for name in calls}
    return _in_order(makers, failed | _rounds(timers, baseline, effort.rounds))


def _in_order(names: Iterable[str], cells: Mapping[str, Cell]) -> dict[str, Cell]:
    return {name: cells[name] for name in names}


def ratios(samples: Mapping[str, Iterable[float]], baseline: str) -> dict[str, Cell]:
    """Figures from what was measured in each round."""
    base = np.array(list(samples[baseline]))
    return {name: _figure(np.array(list(found)), base) for name, found in samples.items()}


def geometric_mean(rows: Iterable[Mapping[str, Cell]]) -> dict[str, Cell]:
    """The mean of each column, where all of it was measured."""
    columns: dict[str, list[Cell]] = {}
    for row in rows:
        for name, cell in row.items():
            columns.setdefault(name, []).append(cell)
    return {name: _mean(cells) for name, cells in columns.items()}


def _mean(cells: list[Cell]) -> Cell:
    known = [c.value for c in cells if isinstance(c, Figure)]
    if len(known) < len(cells):
        return Missing("a row has no figure")
    return Figure.of(math.exp(sum(map(math.log, known)) / len(known)))


def _made(makers: Makers, baseline: str) -> tuple[dict[str, Callable[[], Any]], dict[str, Cell]]:
    """The calls that work, run once so that nothing is compiled later, and why the others do not."""
    working: dict[str, Callable[[], Any]] = {}
    failed: dict[str, Cell] = {}
    for name, make in makers.items():
        try:
            call = make()
            jax.block_until_ready(call())
            working[name] = call
        except Exception as e:  # whatever another library raises is a reason
            if name in (baseline, "stategrad"):
                raise
            failed[name] = Missing(_reason(e))
    return working, failed


def _reason(e: Exception) -> str:
    first = next(iter(str(e).strip().splitlines()), "")
    return first if isinstance(e, NotImplementedError) else f"{type(e).__name__}: {first[:120]}"


def _rounds(timers: Mapping[str, Callable[[], float]], baseline: str, rounds: int) -> dict[str, Cell]:
    samples: dict[str, list[float]] = {name: [] for name in timers}
    gc.collect()
    for _ in range(rounds):
        for name, timer in timers.items():
            samples[name].append(timer())
    return ratios(samples, baseline)


def _seconds(call: Callable[[], Any], number: int) -> float:
    result = None
    start = time.perf_counter()
    for _ in range(number):
        result = call()
    jax.block_until_ready(result)
    return time.perf_counter() - start


def _each(call: Callable[[], Any], number: int) -> float:
    return _seconds(call, number) / number


def _fresh(make: Callable[[], Callable[[], Any]]) -> float:
    return _seconds(make(), 1)


def _figure(samples: np.ndarray, base: np.ndarray) -> Figure:
    low, median, high = np.quantile(samples / base, (0.25, 0.5, 0.75))
    return Figure(float(median), float(low), float(high), float(np.median(base)))
