"""Elementwise arithmetic of two operands. Derivatives are those of jax.lax, ties and corners included."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Value
from ..derivatives import Jvp, Linear, Undefined
from ..opdef import Sample, Tangents, row, sample
from .common import alike, batch, elementwise, like, slopes, total

if TYPE_CHECKING:
    from ..build import Builder


def _pair(of: str, **options: Any) -> Sample:
    return sample(of, of, **options)


# ---------------------------------------------------------------------------------------------- add, sub, mul
def _only_given(b: "Builder", op: Operation, tangents: Tangents) -> Value:
    return next(t for t in tangents if t is not None)


def _signed_given(b: "Builder", op: Operation, tangents: Tangents) -> Value:
    first, second = tangents
    return first if first is not None else b.neg(second)


elementwise(
    "add",
    "x + y.",
    "iufc",
    np.add,
    Linear("all", lambda b, op, index, ct, operands: ct, _only_given),
    "add",
    _pair("f32[2,3]"),
    _pair("f32[0]"),
    _pair("bf16[3]"),
    _pair("c64[2]"),
    _pair("i8[3]", ints=(-128, 127)),
    nan=True,
)
elementwise(
    "sub",
    "x − y.",
    "iufc",
    np.subtract,
    Linear("all", lambda b, op, index, ct, operands: b.neg(ct) if index else ct, _signed_given),
    "subtract",
    _pair("f32[2,3]"),
    _pair("f16[3]"),
    _pair("c64[2]"),
    _pair("u8[3]", ints=(0, 255)),
    nan=True,
)
elementwise(
    "mul",
    "x · y.",
    "iufc",
    np.multiply,
    Linear("each", lambda b, op, index, ct, operands: b.mul(ct, operands[1 - index])),
    "multiply",
    _pair("f32[2,3]"),
    _pair("f32[]"),
    _pair("c64[2]"),
    _pair("bf16[3]"),
    _pair("i32[3]", ints=(-50, 50)),
    nan=True,
)


# ------------------------------------------------------------------------------------------------ div, rem
def _divide(x: Any, y: Any) -> Any:
    if x.dtype.kind not in "iu":
        return np.divide(x, y)
    # XLA's integers: truncation, all ones for a zero divisor, and no trap for the least number over −1.
    quotient = np.where(y == 0, x, _truncated(x, np.where(y == 0, 1, y).astype(x.dtype)))
    return np.where(y == 0, np.array(-1).astype(x.dtype), quotient).astype(x.dtype)


def _truncated(x: Any, y: Any) -> Any:
    floor = np.floor_divide(x, y)
    inexact = (floor * y != x) & ((x < 0) != (y < 0))
    return (floor + inexact).astype(x.dtype)


def _remainder(x: Any, y: Any) -> Any:
    if x.dtype.kind == "f":
        return np.fmod(x, y)
    return np.where(y == 0, x, np.fmod(x, np.where(y == 0, 1, y).astype(x.dtype))).astype(x.dtype)


def _quotient_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
) -> Value:
    (x, y), (dx, dy) = operands, tangents
    terms = [] if dx is None else [b.div(dx, y)]
    if dy is not None:
        terms.append(b.mul(dy, b.neg(b.mul(x, b.integer_pow(y, y=-2)))))
    return total(b, terms)


def _quotient_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.div(ct, operands[1])


def _whole_quotient(b: "Builder", x: Value, y: Value) -> Value:
    ratio = b.div(x, y)
    return b.mul(b.sign(ratio), b.floor(b.abs(ratio)))


elementwise(
    "div",
    "x / y; of integers, rounded towards zero.",
    "iufc",
    _divide,
    Jvp(_quotient_jvp, _quotient_transpose),
    "divide",
    _pair("f32[2,3]", low=0.5, high=2.0),
    _pair("c64[2]", low=0.5, high=2.0),
    _pair("bf16[3]", low=0.5, high=2.0),
    _pair("i8[40]", ints=(-128, 127)),
    _pair("u8[5]", ints=(0, 9)),
    nan=True,
)
elementwise(
    "rem",
    "The remainder of x / y, with the sign of x.",
    "iuf",
    _remainder,
    slopes(lambda b, xs, r: like(b, xs[0], 1.0), lambda b, xs, r: b.neg(_whole_quotient(b, *xs))),
    "remainder",
    sample("f32[2,3]", "f32[2,3]", low=0.5, high=4.0),
    _pair("i8[40]", ints=(-9, 9)),
    _pair("u8[5]", ints=(0, 9)),
    nan=True,
)


# ------------------------------------------------------------------------------------------------ max, min
def _share(b: "Builder", mine: Value, other: Value, result: Value) -> Value:
    zero, half, one = (like(b, mine, v) for v in (0.0, 0.5, 1.0))
    return b.select(b.eq(mine, result), b.select(b.eq(other, result), half, one), zero)


# Equal operands share the tangent, half each.
_ties_halved = slopes(
    lambda b, xs, result: _share(b, xs[0], xs[1], result),
    lambda b, xs, result: _share(b, xs[1], xs[0], result),
)

for _name, _doc, _evaluate in (
    ("max", "The larger of x and y; NaN if either is.", np.maximum),
    ("min", "The smaller of x and y; NaN if either is.", np.minimum),
):
    elementwise(
        _name,
        _doc,
        "biuf",
        _evaluate,
        _ties_halved,
        f"{_name}imum",
        _pair("f32[2,3]"),
        _pair("bf16[3]"),
        _pair("bool[4]"),
        _pair("i32[3]", ints=(-5, 5)),
        _pair("u8[3]", ints=(0, 255)),
    )


row(
    name="nextafter",
    doc="The number next to x in the direction of y.",
    type_rule=alike("f", 2),
    evaluate=np.nextafter,  # in the type itself: in a wider one the next number is another
    derivative=Undefined("jax.lax has none either"),
    batch=batch,
    lower="chlo.next_after",
    may_be_nan=True,
    samples=(_pair("f32[4]"), _pair("bf16[4]"), _pair("f16[4]")),
)
