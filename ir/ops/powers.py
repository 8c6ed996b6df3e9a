"""Powers and roots. Derivatives are those of jax.lax, corners included."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Jvp
from ..opdef import Tangents, row, sample
from .common import POSITIVE, REAL, batch, demand, demand_same, elementwise, in_numpy, like, slope, slopes

if TYPE_CHECKING:
    from ..build import Builder

_POSITIVE_COMPLEX = (*POSITIVE, sample("c64[3]", low=0.1, high=2.0))


# ------------------------------------------------------------------------------------------- square and roots
elementwise(
    "square",
    "x · x.",
    "iufc",
    np.square,
    slope(lambda b, x, y: b.mul(like(b, x, 2.0), x)),
    lambda hlo, op, x: hlo.op("multiply", [x, x], [op.result.type]),
    *REAL,
    sample("c64[3]"),
    sample("i32[4]", ints=(-5, 5)),
    nan=True,
)
elementwise(
    "sqrt",
    "The square root.",
    "fc",
    np.sqrt,
    slope(lambda b, x, y: b.div(like(b, y, 0.5), y)),
    "sqrt",
    *_POSITIVE_COMPLEX,
    nan=True,
)
elementwise(
    "rsqrt",
    "One over the square root.",
    "fc",
    lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    slope(lambda b, x, y: b.mul(like(b, y, -0.5), b.div(y, x))),
    "rsqrt",
    *_POSITIVE_COMPLEX,
    nan=True,
)
elementwise(
    "cbrt",
    "The cube root.",
    "f",
    np.cbrt,
    slope(lambda b, x, y: b.mul(like(b, y, 1 / 3), b.integer_pow(y, y=-2))),
    "cbrt",
    *POSITIVE,
    sample("f32[3]", low=-2.0, high=-0.1),
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
        sample("f32[2,3]", "f32[2,3]", low=0.3, high=2.0),
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


def _by_squaring(
    x: Any, y: int, one: Any, mul: Callable[[Any, Any], Any], div: Callable[[Any, Any], Any]
) -> Any:
    power, left = None, abs(y)
    while left:
        if left & 1:
            power = x if power is None else mul(power, x)
        left >>= 1
        if left:
            x = mul(x, x)
    power = one if power is None else power
    return div(one, power) if y < 0 else power


def _integer_pow_jvp(
    b: "Builder", op: Operation, operands: Any, tangents: Tangents, results: Any
) -> Value | None:
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
