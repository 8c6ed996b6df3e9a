"""Elementwise functions of one operand: signs, rounding, exponentials. Derivatives are those of jax.lax."""

from typing import Any

import numpy as np

from ..core import Operation, Type
from ..derivatives import Zero
from ..dtypes import BOOL
from ..errors import IRTypeError
from ..opdef import row, sample
from .common import POSITIVE, REAL, alike, batch, demand, elementwise, in_numpy, itself, like, over, slope

_STEPS = Zero("it is constant between its steps")
_COMPLEX = (*REAL, sample("c64[3]"))
_SIGNED = sample("i32[4]", ints=(-5, 5))


# ------------------------------------------------------------------------------------------ sign and rounding
def _lower_sign(hlo: Any, op: Operation, x: Any) -> Any:
    of = op.result.type
    if of.dtype.kind != "u":
        return hlo.op("sign", [x], [of])
    return hlo.op("minimum", [x, hlo.constant(1, of)], [of])


elementwise("neg", "−x.", "iufc", np.negative, itself(lambda b, ct: b.neg(ct)), "negate", *_COMPLEX, _SIGNED)
elementwise(
    "sign", "−1, 0 or 1; NaN of NaN.", "iuf", np.sign, _STEPS, _lower_sign, *REAL, _SIGNED, sample("u8[3]")
)
elementwise("floor", "The largest whole number that is at most x.", "f", np.floor, _STEPS, "floor", *REAL)
elementwise("ceil", "The smallest whole number that is at least x.", "f", np.ceil, _STEPS, "ceil", *REAL)


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
    samples=REAL,
)


# ----------------------------------------------------------------------------------------------- exponentials
def _logistic(x: Any) -> Any:
    return (1 / (1 + np.exp(-x))).astype(x.dtype)


def _lower_logistic(hlo: Any, op: Operation, x: Any) -> Any:
    of = op.result.type
    one = hlo.constant(1, of)
    (negative,) = hlo.op("negate", [x], [of])
    (power,) = hlo.op("exponential", [negative], [of])
    return hlo.op("divide", [one, *hlo.op("add", [one, power], [of])], [of])


elementwise("exp", "e to the x.", "fc", np.exp, slope(lambda b, x, y: y), "exponential", *_COMPLEX, nan=True)
elementwise(
    "expm1",
    "e to the x, minus one; accurate near zero.",
    "f",
    np.expm1,
    slope(lambda b, x, y: b.add(y, like(b, y, 1.0))),
    "exponential_minus_one",
    *REAL,
    nan=True,
)
elementwise(
    "log",
    "The natural logarithm.",
    "fc",
    np.log,
    over(lambda b, x: x),
    "log",
    *POSITIVE,
    sample("c64[3]", low=0.1, high=2.0),
    nan=True,
)
elementwise(
    "log1p",
    "The natural logarithm of 1 + x; accurate near zero.",
    "f",
    np.log1p,
    over(lambda b, x: b.add(x, like(b, x, 1.0))),
    "log_plus_one",
    *POSITIVE,
    nan=True,
)
elementwise(
    "logistic",
    "1 / (1 + e to the −x).",
    "f",
    _logistic,
    slope(lambda b, x, y: b.mul(y, b.sub(like(b, y, 1.0), y))),
    _lower_logistic,
    *REAL,
)
elementwise(
    "tanh",
    "The hyperbolic tangent.",
    "f",
    np.tanh,
    # Near y = ±1 the rounding of y² costs half of what the rounding of y has cost already. (1 + y)(1 − y)
    # would cost nothing, but its derivatives are twice as long, and XLA takes twice as long to compile them.
    slope(lambda b, x, y: b.sub(like(b, y, 1.0), b.square(y))),
    "tanh",
    *REAL,
)
