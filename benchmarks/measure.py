"""Interleaved timing: what is compared runs in turns, so that a busy machine slows all of it alike."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ratio:
    """How long something takes, as a multiple of a baseline: median and quartiles over rounds.

    Attributes:
        seconds: the median time of one call of the baseline.
    """

    median: float
    low: float
    high: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def compare(
    calls: Mapping[str, Callable[[], object]], baseline: str, rounds: int, number: int
) -> dict[str, Ratio]:
    """Runs each call `number` times in a row, all of them in turns, `rounds` times over."""
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(number):
                call()
            times[name].append((time.perf_counter() - start) / number)
    base = np.array(times[baseline])
    return {name: _ratio(np.array(t), base) for name, t in times.items()}


def _ratio(seconds: np.ndarray, base: np.ndarray) -> Ratio:
    low, median, high = np.quantile(seconds / base, (0.25, 0.5, 0.75))
    return Ratio(float(median), float(low), float(high), float(np.median(base)))
