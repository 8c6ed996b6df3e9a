"""Trigonometric and hyperbolic functions. Derivatives are those of jax.lax."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core import Value
from ..opdef import sample
from .common import INSIDE, REAL, elementwise, like, over, slope, slopes

if TYPE_CHECKING:
    from ..build import Builder


# ------------------------------------------------------------------------------------------------ angles
elementwise("sin", "The sine.", "f", np.sin, slope(lambda b, x, y: b.cos(x)), "sine", *REAL)
elementwise("cos", "The cosine.", "f", np.cos, slope(lambda b, x, y: b.neg(b.sin(x))), "cosine", *REAL)
elementwise(
    "tan",
    "The tangent.",
    "f",
    np.tan,
    slope(lambda b, x, y: b.add(like(b, y, 1.0), b.square(y))),
    "tan",
    *REAL,
)


def _one_minus_square(b: "Builder", x: Value) -> Value:
    return b.sub(like(b, x, 1.0), b.square(x))


def _one_plus_square(b: "Builder", x: Value) -> Value:
    return b.add(like(b, x, 1.0), b.square(x))


elementwise(
    "asin",
    "The angle whose sine is x.",
    "f",
    np.arcsin,
    slope(lambda b, x, y: b.rsqrt(_one_minus_square(b, x))),
    "chlo.asin",
    *INSIDE,
    nan=True,
)
elementwise(
    "acos",
    "The angle whose cosine is x.",
    "f",
    np.arccos,
    slope(lambda b, x, y: b.neg(b.rsqrt(_one_minus_square(b, x)))),
    "chlo.acos",
    *INSIDE,
    nan=True,
)
elementwise(
    "atan", "The angle whose tangent is x.", "f", np.arctan, over(_one_plus_square), "chlo.atan", *REAL
)
elementwise(
    "sinh",
    "The hyperbolic sine.",
    "f",
    np.sinh,
    slope(lambda b, x, y: b.cosh(x)),
    "chlo.sinh",
    *REAL,
    nan=True,
)
elementwise(
    "cosh",
    "The hyperbolic cosine.",
    "f",
    np.cosh,
    slope(lambda b, x, y: b.sinh(x)),
    "chlo.cosh",
    *REAL,
    nan=True,
)
elementwise(
    "asinh",
    "The inverse of the hyperbolic sine.",
    "f",
    np.arcsinh,
    slope(lambda b, x, y: b.rsqrt(_one_plus_square(b, x))),
    "chlo.asinh",
    *REAL,
)
elementwise(
    "acosh",
    "The inverse of the hyperbolic cosine.",
    "f",
    np.arccosh,
    slope(lambda b, x, y: b.rsqrt(b.sub(b.square(x), like(b, x, 1.0)))),
    "chlo.acosh",
    sample("f32[2,3]", low=1.1, high=3.0),
    sample("bf16[3]", low=1.1, high=3.0),
    nan=True,
)


def _atanh_slope(b: "Builder", x: Value, y: Value) -> Value:
    one = like(b, x, 1.0)
    return b.mul(b.div(one, b.add(one, x)), b.div(one, b.sub(one, x)))


elementwise(
    "atanh",
    "The inverse of the hyperbolic tangent.",
    "f",
    np.arctanh,
    slope(_atanh_slope),
    "chlo.atanh",
    *INSIDE,
    nan=True,
)


# ------------------------------------------------------------------------------------------------ atan2
def _over_radius(b: "Builder", x: Value, xs: Sequence[Value]) -> Value:
    return b.div(x, b.add(b.square(xs[0]), b.square(xs[1])))


elementwise(
    "atan2",
    "The arc tangent of x / y in all four quadrants: the angle of the point (y, x).",
    "f",
    np.arctan2,
    slopes(lambda b, xs, r: _over_radius(b, xs[1], xs), lambda b, xs, r: _over_radius(b, b.neg(xs[0]), xs)),
    "atan2",
    sample("f32[2,3]", "f32[2,3]", low=0.1),
    sample("bf16[3]", "bf16[3]", low=0.1),
)
