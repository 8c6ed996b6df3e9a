"""The error function and its relatives."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .common import INSIDE, REAL, elementwise, like, slope

_SLOPE_AT_ZERO = 2 / math.sqrt(math.pi)


def _vectorized(function: Callable[[float], float]) -> Callable[[Any], Any]:
    vectorized = np.vectorize(function, otypes=[np.float64])
    return lambda x: vectorized(x).astype(x.dtype)


def _erf_inv(x: float) -> float:
    """Halley's iteration from Winitzki's approximation ("A handy approximation", 2008).

    Near ±1 the residual is taken with erfc, whose argument 1 − |x| is exact there.
    """
    size = abs(x)
    if not size < 1:
        return math.copysign(math.inf, x) if size == 1 else math.nan
    log, a = math.log1p(-size * size), 0.147
    half = 2 / (math.pi * a) + log / 2
    y = math.sqrt(max(math.sqrt(half * half - log / a) - half, 0.0))
    for _ in range(3):
        residual = math.erf(y) - size if size < 0.5 else (1 - size) - math.erfc(y)
        step = residual / (_SLOPE_AT_ZERO * math.exp(-y * y))
        y -= step / (1 + y * step)
    return math.copysign(y, x)


elementwise(
    "erf",
    "The error function.",
    "f",
    _vectorized(math.erf),
    slope(lambda b, x, y: b.mul(like(b, x, _SLOPE_AT_ZERO), b.exp(b.neg(b.square(x))))),
    "chlo.erf",
    *REAL,
)
elementwise(
    "erfc",
    "1 − erf(x); accurate for large x.",
    "f",
    _vectorized(math.erfc),
    slope(lambda b, x, y: b.mul(like(b, x, -_SLOPE_AT_ZERO), b.exp(b.neg(b.square(x))))),
    "chlo.erfc",
    *REAL,
)
elementwise(
    "erf_inv",
    "The y whose erf(y) is x.",
    "f",
    _vectorized(_erf_inv),
    slope(lambda b, x, y: b.mul(like(b, x, 1 / _SLOPE_AT_ZERO), b.exp(b.square(y)))),
    "chlo.erf_inv",
    *INSIDE,
    nan=True,
)
