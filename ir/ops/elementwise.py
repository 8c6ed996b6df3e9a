"""Elementwise functions of one operand. Derivatives follow the formulas of jax.lax."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..dtypes import BOOL
from ..errors import IRTypeError
from ..opdef import Derivative, Jvp, Sample, Zero, row, sample
from .common import alike, batch, demand, in_numpy, itself, like, over, slope

if TYPE_CHECKING:
    from ..build import Builder

_STEPS = Zero("it is constant between its steps")
_REAL = (sample("f32[2,3]"), sample("f32[]"), sample("bf16[3]"), sample("f16[3]"))
_COMPLEX = (*_REAL, sample("c64[3]"))
_POSITIVE = (sample("f32[2,3]", low=0.1, high=2.0), sample("bf16[3]", low=0.1, high=2.0))
_POSITIVE_COMPLEX = (*_POSITIVE, sample("c64[3]", low=0.1, high=2.0))
_SIGNED = sample("i32[4]", ints=(-5, 5))


def _unary(
    name: str,
    doc: str,
    kinds: str,
    evaluate: Any,
    derivative: Derivative,
    lower: Any,
    samples: tuple[Sample, ...],
    nan: bool = False,
) -> None:
    row(
        name=name,
        doc=doc,
        type_rule=alike(kinds, 1),
        evaluate=in_numpy(evaluate),
        derivative=derivative,
        batch=batch,
        lower=lower,
        may_be_nan=nan,
        samples=samples,
    )


# ------------------------------------------------------------------------------------------------ sign and rounding
def _lower_sign(hlo: Any, op: Operation, x: Any) -> Any:
    of = op.result.type
    if of.dtype.kind != "u":
        return hlo.op("sign", [x], [of])
    return hlo.op("minimum", [x, hlo.constant(1, of)], [of])


_unary("neg", "−x.", "iufc", np.negative, itself(lambda b, ct: b.neg(ct)), "negate", (*_COMPLEX, _SIGNED))
_unary("sign", "−1, 0 or 1; NaN of NaN.", "iuf", np.sign, _STEPS, _lower_sign, (*_REAL, _SIGNED, sample("u8[3]")))
_unary("floor", "The largest whole number that is at most x.", "f", np.floor, _STEPS, "floor", _REAL)
_unary("ceil", "The smallest whole number that is at least x.", "f", np.ceil, _STEPS, "ceil", _REAL)


def _round_type(x: Type, *, mode: str) -> Type:
    demand("f", x)
    if mode not in ("to_nearest_even", "away_from_zero"):
        raise IRTypeError(f"mode = {mode!r} must be 'to_nearest_even' or 'away_from_zero'")
    return x


def _round(x: Any, *, mode: str) -> Any:
    if mode == "to_nearest_even":
        return np.rint(x)
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(1, x), whole).astype(x.dtype)


def _lower_round(hlo: Any, op: Operation, x: Any) -> Any:
    even = op.attributes["mode"] == "to_nearest_even"
    return hlo.op("round_nearest_even" if even else "round_nearest_afz", [x], [op.result.type])


row(
    name="round",
    doc="The whole number nearest to x; `mode` says where halves go.",
    type_rule=_round_type,
    evaluate=in_numpy(_round),
    derivative=_STEPS,
    batch=batch,
    lower=_lower_round,
    samples=(
        sample("f32[2,3]", mode="to_nearest_even", low=-3),
        sample("f32[2,3]", mode="away_from_zero", low=-3),
        sample("bf16[3]", mode="away_from_zero"),
    ),
)
row(
    name="is_finite",
    doc="Whether x is neither infinite nor NaN.",
    type_rule=alike("f", 1, BOOL),
    evaluate=in_numpy(np.isfinite),
    derivative=_STEPS,
    batch=batch,
    lower="is_finite",
    samples=_REAL,
)


# ------------------------------------------------------------------------------------------------ exponentials
def _logistic(x: Any) -> Any:
    return (1 / (1 + np.exp(-x))).astype(x.dtype)


def _lower_logistic(hlo: Any, op: Operation, x: Any) -> Any:
    of = op.result.type
    one = hlo.constant(1, of)
    (negative,) = hlo.op("negate", [x], [of])
    (power,) = hlo.op("exponential", [negative], [of])
    return hlo.op("divide", [one, *hlo.op("add", [one, power], [of])], [of])


_unary("exp", "e to the x.", "fc", np.exp, slope(lambda b, x, y: y), "exponential", _COMPLEX, nan=True)
_unary(
    "expm1",
    "e to the x, minus one; accurate near zero.",
    "f",
    np.expm1,
    slope(lambda b, x, y: b.add(y, like(b, y, 1.0))),
    "exponential_minus_one",
    _REAL,
    nan=True,
)
_unary("log", "The natural logarithm.", "fc", np.log, over(lambda b, x: x), "log", _POSITIVE_COMPLEX, nan=True)
_unary(
    "log1p",
    "The natural logarithm of 1 + x; accurate near zero.",
    "f",
    np.log1p,
    over(lambda b, x: b.add(x, like(b, x, 1.0))),
    "log_plus_one",
    _POSITIVE,
    nan=True,
)
_unary(
    "logistic",
    "1 / (1 + e to the −x).",
    "f",
    _logistic,
    slope(lambda b, x, y: b.mul(y, b.sub(like(b, y, 1.0), y))),
    _lower_logistic,
    _REAL,
)
_unary(
    "tanh",
    "The hyperbolic tangent.",
    "f",
    np.tanh,
    # (1 + y)(1 − y) keeps the digits that 1 − y² loses near y = ±1.
    slope(lambda b, x, y: b.mul(b.add(like(b, y, 1.0), y), b.sub(like(b, y, 1.0), y))),
    "tanh",
    _REAL,
)


# ------------------------------------------------------------------------------------------------ powers
_unary(
    "square",
    "x · x.",
    "iufc",
    np.square,
    slope(lambda b, x, y: b.mul(like(b, x, 2.0), x)),
    lambda hlo, op, x: hlo.op("multiply", [x, x], [op.result.type]),
    (*_COMPLEX, _SIGNED),
    nan=True,
)
_unary(
    "sqrt",
    "The square root.",
    "fc",
    np.sqrt,
    slope(lambda b, x, y: b.div(like(b, y, 0.5), y)),
    "sqrt",
    _POSITIVE_COMPLEX,
    nan=True,
)
_unary(
    "rsqrt",
    "One over the square root.",
    "fc",
    lambda x: (1 / np.sqrt(x)).astype(x.dtype),
    slope(lambda b, x, y: b.mul(like(b, y, -0.5), b.div(y, x))),
    "rsqrt",
    _POSITIVE_COMPLEX,
    nan=True,
)
_unary(
    "cbrt",
    "The cube root.",
    "f",
    np.cbrt,
    slope(lambda b, x, y: b.mul(like(b, y, 1 / 3), b.integer_pow(y, y=-2))),
    "cbrt",
    (*_POSITIVE, sample("f32[3]", low=-2.0, high=-0.1)),
)


# ------------------------------------------------------------------------------------------------ angles
_unary("sin", "The sine.", "f", np.sin, slope(lambda b, x, y: b.cos(x)), "sine", _REAL)
_unary("cos", "The cosine.", "f", np.cos, slope(lambda b, x, y: b.neg(b.sin(x))), "cosine", _REAL)
_unary(
    "tan",
    "The tangent.",
    "f",
    np.tan,
    slope(lambda b, x, y: b.add(like(b, y, 1.0), b.square(y))),
    "tan",
    _REAL,
)


def _one_minus_square(b: "Builder", x: Value) -> Value:
    return b.sub(like(b, x, 1.0), b.square(x))


def _one_plus_square(b: "Builder", x: Value) -> Value:
    return b.add(like(b, x, 1.0), b.square(x))


_INSIDE = (sample("f32[2,3]", low=-0.9, high=0.9), sample("bf16[3]", low=-0.9, high=0.9))
_unary(
    "asin",
    "The angle whose sine is x.",
    "f",
    np.arcsin,
    slope(lambda b, x, y: b.rsqrt(_one_minus_square(b, x))),
    "chlo.asin",
    _INSIDE,
    nan=True,
)
_unary(
    "acos",
    "The angle whose cosine is x.",
    "f",
    np.arccos,
    slope(lambda b, x, y: b.neg(b.rsqrt(_one_minus_square(b, x)))),
    "chlo.acos",
    _INSIDE,
    nan=True,
)
_unary("atan", "The angle whose tangent is x.", "f", np.arctan, over(_one_plus_square), "chlo.atan", _REAL)
_unary("sinh", "The hyperbolic sine.", "f", np.sinh, slope(lambda b, x, y: b.cosh(x)), "chlo.sinh", _REAL, nan=True)
_unary("cosh", "The hyperbolic cosine.", "f", np.cosh, slope(lambda b, x, y: b.sinh(x)), "chlo.cosh", _REAL, nan=True)
_unary(
    "asinh",
    "The inverse of the hyperbolic sine.",
    "f",
    np.arcsinh,
    slope(lambda b, x, y: b.rsqrt(_one_plus_square(b, x))),
    "chlo.asinh",
    _REAL,
)
_unary(
    "acosh",
    "The inverse of the hyperbolic cosine.",
    "f",
    np.arccosh,
    slope(lambda b, x, y: b.rsqrt(b.sub(b.square(x), like(b, x, 1.0)))),
    "chlo.acosh",
    (sample("f32[2,3]", low=1.1, high=3.0), sample("bf16[3]", low=1.1, high=3.0)),
    nan=True,
)


def _atanh_slope(b: "Builder", x: Value, y: Value) -> Value:
    one = like(b, x, 1.0)
    return b.mul(b.div(one, b.add(one, x)), b.div(one, b.sub(one, x)))


_unary(
    "atanh",
    "The inverse of the hyperbolic tangent.",
    "f",
    np.arctanh,
    slope(_atanh_slope),
    "chlo.atanh",
    _INSIDE,
    nan=True,
)
