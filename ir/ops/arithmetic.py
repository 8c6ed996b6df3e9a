"""Elementwise arithmetic of two operands. Derivatives follow the formulas of jax.lax, ties and corners included."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..opdef import Jvp, Linear, Sample, Tangents, Undefined, row, sample
from .common import alike, batch, demand, demand_same, in_numpy, like, slopes, total

if TYPE_CHECKING:
    from ..build import Builder


def _pair(of: str, **options: Any) -> Sample:
    return sample(of, of, **options)


def _binary(
    name: str, doc: str, kinds: str, evaluate: Any, derivative: Any, lower: Any, *samples: Sample, nan: bool = False
) -> None:
    row(
        name=name,
        doc=doc,
        type_rule=alike(kinds, 2),
        evaluate=in_numpy(evaluate),
        derivative=derivative,
        batch=batch,
        lower=lower,
        may_be_nan=nan,
        samples=samples,
    )


# ------------------------------------------------------------------------------------------------ add, sub, mul
def _only_given(b: "Builder", op: Operation, tangents: Tangents) -> Value:
    return next(t for t in tangents if t is not None)


def _signed_given(b: "Builder", op: Operation, tangents: Tangents) -> Value:
    first, second = tangents
    return first if first is not None else b.neg(second)


_binary(
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
_binary(
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
_binary(
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


_binary(
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
_binary(
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
    lambda b, xs, result: _share(b, xs[0], xs[1], result), lambda b, xs, result: _share(b, xs[1], xs[0], result)
)

for _name, _doc, _evaluate in (
    ("max", "The larger of x and y; NaN if either is.", np.maximum),
    ("min", "The smaller of x and y; NaN if either is.", np.minimum),
):
    _binary(
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


# ------------------------------------------------------------------------------------------------ atan2, nextafter
def _over_radius(b: "Builder", x: Value, xs: Sequence[Value]) -> Value:
    return b.div(x, b.add(b.square(xs[0]), b.square(xs[1])))


_binary(
    "atan2",
    "The angle of the point (y, x), where x is the first operand: the arc tangent of x / y in all four quadrants.",
    "f",
    np.arctan2,
    slopes(lambda b, xs, r: _over_radius(b, xs[1], xs), lambda b, xs, r: _over_radius(b, b.neg(xs[0]), xs)),
    "atan2",
    _pair("f32[2,3]", low=0.1),
    _pair("bf16[3]", low=0.1),
)
_binary(
    "nextafter",
    "The number next to x in the direction of y.",
    "f",
    np.nextafter,
    Undefined("jax.lax has none either"),
    "chlo.next_after",
    _pair("f32[4]"),
    nan=True,
)


# ------------------------------------------------------------------------------------------------ pow
def _pow_type(x: Type, y: Type) -> Type:
    demand("f", x)
    demand("iuf", y)
    demand_same(x, y if y.dtype.kind == "f" else y.with_dtype(x.dtype))
    return x


def _nonzero(b: "Builder", x: Value) -> Value:
    return b.select(b.eq(x, like(b, x, 0.0)), like(b, x, 1.0), x)


def _pow_by_base(b: "Builder", xs: Sequence[Value], result: Value) -> Value:
    x, y = xs
    if y.type.dtype.kind == "f":
        return b.mul(y, b.pow(x, b.sub(y, like(b, y, 1.0))))
    y = b.convert(y, to=x.type.dtype)
    zero = like(b, y, 0.0)
    slope = b.mul(_nonzero(b, y), b.pow(x, b.sub(y, like(b, y, 1.0))))
    return b.select(b.eq(y, zero), zero, slope)


def _pow_by_exponent(b: "Builder", xs: Sequence[Value], result: Value) -> Value:
    return b.mul(b.log(_nonzero(b, xs[0])), result)


def _lower_pow(hlo: Any, op: Operation, x: Any, y: Any) -> Any:
    of = op.result.type
    if op.operands[1].type != of:
        (y,) = hlo.op("convert", [y], [of])
    return hlo.op("power", [x, y], [of])


row(
    name="pow",
    doc="x to the y; y may be of integers.",
    type_rule=_pow_type,
    evaluate=in_numpy(lambda x, y: np.power(x, y.astype(x.dtype))),
    derivative=slopes(_pow_by_base, _pow_by_exponent),
    batch=batch,
    lower=_lower_pow,
    may_be_nan=True,
    samples=(
        _pair("f32[2,3]", low=0.3, high=2.0),
        sample("f32[6]", "i32[6]", low=0.3, high=2.0, ints=(-2, 3)),
        sample("bf16[3]", "bf16[3]", low=0.3, high=2.0),
    ),
)


# ------------------------------------------------------------------------------------------------ integer_pow
def _integer_pow_type(x: Type, *, y: int) -> Type:
    demand("iufc", x)
    if y < 0:
        demand("fc", x)
    return x


def _by_squaring(x: Any, y: int, one: Any, mul: Callable[[Any, Any], Any], div: Callable[[Any, Any], Any]) -> Any:
    power, left = None, abs(y)
    while left:
        if left & 1:
            power = x if power is None else mul(power, x)
        left >>= 1
        if left:
            x = mul(x, x)
    power = one if power is None else power
    return div(one, power) if y < 0 else power


def _integer_pow_jvp(b: "Builder", op: Operation, operands: Any, tangents: Tangents, results: Any) -> Value | None:
    (x,), (t,), y = operands, tangents, op.attributes["y"]
    if y in (0, 1):
        return t if y else None
    factor = like(b, x, float(y))
    return b.mul(t, b.mul(factor, x if y == 2 else b.integer_pow(x, y=y - 1)))


def _lower_integer_pow(hlo: Any, op: Operation, x: Any) -> Any:
    of = op.result.type

    def emit(name: str) -> Callable[[Any, Any], Any]:
        return lambda left, right: hlo.op(name, [left, right], [of])[0]

    return _by_squaring(x, op.attributes["y"], hlo.constant(1, of), emit("multiply"), emit("divide"))


row(
    name="integer_pow",
    doc="x to the y, for a fixed whole y, by repeated multiplication.",
    type_rule=_integer_pow_type,
    evaluate=in_numpy(lambda x, *, y: _by_squaring(x, y, np.ones_like(x), np.multiply, np.divide)),
    derivative=Jvp(_integer_pow_jvp),
    batch=batch,
    lower=_lower_integer_pow,
    may_be_nan=True,
    samples=(
        *(sample("f32[2,3]", y=y) for y in (0, 1, 2, 3, 7)),
        *(sample("f32[4]", y=y, low=0.5, high=2.0) for y in (-1, -2, -5)),
        sample("c64[2]", y=3),
        sample("i8[4]", y=3, ints=(-9, 9)),
        sample("bf16[3]", y=2),
    ),
)
