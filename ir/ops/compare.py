"""Comparisons, select, clamp, convert."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_dtypes import iinfo

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Linear, Zero
from ..dtypes import BOOL, F32, I32, DType, dtype, dtype_of
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .common import alike, batch, component, demand, demand_same, in_numpy, total

if TYPE_CHECKING:
    from ..build import Builder

_TRUTH_VALUES = Zero("its results are truth values")


# ------------------------------------------------------------------------------------------------ comparisons
def lower_compare(hlo: Any, direction: str, of: Type, to: Type, x: Any, y: Any) -> Any:
    """Emits the comparison of two values of type `of`; `direction` is that of StableHLO."""
    how = "FLOAT" if of.dtype.kind in "fc" else "SIGNED" if of.dtype.kind == "i" else "UNSIGNED"
    return hlo.op(
        "compare",
        [x, y],
        [to],
        comparison_direction=f"#stablehlo<comparison_direction {direction}>",
        compare_type=f"#stablehlo<comparison_type {how}>",
    )


def _comparison(name: str, doc: str, evaluate: Any, kinds: str = "biuf") -> None:
    row(
        name=name,
        doc=doc,
        type_rule=alike(kinds, 2, BOOL),
        evaluate=in_numpy(evaluate),
        derivative=_TRUTH_VALUES,
        batch=batch,
        lower=lambda hlo, op, x, y: lower_compare(
            hlo, name.upper(), op.operands[0].type, op.result.type, x, y
        ),
        samples=(
            sample("f32[2,3]", "f32[2,3]"),
            sample("i32[4]", "i32[4]"),
            sample("u8[4]", "u8[4]", ints=(120, 136)),
            sample("bool[4]", "bool[4]"),
            sample("bf16[2]", "bf16[2]"),
        ),
    )


_comparison("eq", "Whether x = y.", np.equal, "biufc")
_comparison("ne", "Whether x ≠ y.", np.not_equal, "biufc")
_comparison("lt", "Whether x < y.", np.less)
_comparison("le", "Whether x ≤ y.", np.less_equal)
_comparison("gt", "Whether x > y.", np.greater)
_comparison("ge", "Whether x ≥ y.", np.greater_equal)


# ------------------------------------------------------------------------------------------------ select
def _select_type(predicate: Type, on_true: Type, on_false: Type) -> Type:
    demand_same(on_true, on_false)
    demand("biufc", on_true)
    if predicate != on_true.with_dtype(BOOL):
        raise IRTypeError(f"the predicate must be {on_true.with_dtype(BOOL)}, not {predicate}")
    return on_true


def _select_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    zero = b.zeros(ct.type)
    return b.select(operands[0], *((ct, zero) if index == 1 else (zero, ct)))


row(
    name="select",
    doc="`select %p, %on_true, %on_false`: the second operand where the first is true, else the third.",
    type_rule=_select_type,
    evaluate=np.where,
    derivative=Linear("all", _select_transpose),
    batch=batch,
    lower="select",
    samples=(
        sample("bool[2,3]", "f32[2,3]", "f32[2,3]"),
        sample("bool[]", "f32[]", "f32[]"),
        sample("bool[4]", "i32[4]", "i32[4]"),
        sample("bool[3]", "c64[3]", "c64[3]"),
        sample("bool[3]", "bf16[3]", "bf16[3]"),
    ),
)


# ------------------------------------------------------------------------------------------------ clamp
def _clamp_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Any
) -> Value:
    low, x, high = operands
    zero = b.zeros(x.type)
    # Strict on both sides: at a bound, no operand has a derivative. Where low > high the result is high.
    passes = (
        lambda: b.call_row("and", b.gt(low, x), b.lt(low, high)),
        lambda: b.call_row("and", b.gt(x, low), b.lt(x, high)),
        lambda: b.lt(high, b.max(low, x)),
    )
    given = zip(tangents, passes, strict=True)
    return total(b, [b.select(where(), t, zero) for t, where in given if t is not None])


row(
    name="clamp",
    doc="`clamp %low, %x, %high`: x, but at least low, and at most high.",
    type_rule=alike("biuf", 3),
    evaluate=in_numpy(lambda low, x, high: np.minimum(np.maximum(x, low), high)),
    derivative=Jvp(_clamp_jvp),
    batch=batch,
    lower="clamp",
    samples=(
        sample("f32[9]", "f32[9]", "f32[9]"),
        sample("bf16[4]", "bf16[4]", "bf16[4]"),
        sample("i32[9]", "i32[9]", "i32[9]", ints=(-9, 9)),
    ),
)


# ------------------------------------------------------------------------------------------------ convert
def _convert_type(x: Type, *, to: DType) -> Type:
    demand("biufc", x, Type(to))
    return x.with_dtype(to)


def _convert_evaluate(x: Any, *, to: DType) -> Any:
    x = np.asarray(x)
    if x.dtype.kind == "c" and to.kind != "c":
        x = x.real
    with np.errstate(all="ignore"):
        if to.kind == "b":
            return np.asarray(np.not_equal(x, 0))
        if to.kind in "iu" and dtype_of(x.dtype).kind == "f":
            return _saturated(x.astype(np.float64), to)
        if to.kind == "f" and np.dtype(to.numpy).itemsize < 4:
            x = x.astype(np.float32)  # XLA rounds twice where the machine has no instruction for it
        return x.astype(to.numpy)


def _saturated(x: Any, to: DType) -> Any:
    """Truncates, as XLA does: what is out of range becomes the nearest number in it, NaN becomes 0."""
    bounds = iinfo(to.numpy)
    low, high, wide = int(bounds.min), int(bounds.max), np.dtype("i8" if to.kind == "i" else "u8")
    inside = np.where((x > low) & (x < high), x, 0).astype(wide)
    least, most = np.array(low, wide), np.array(high, wide)
    return np.where(x >= high, most, np.where(x <= low, least, inside)).astype(to.numpy)


def _convert_jvp(
    b: "Builder", op: Operation, operands: Any, tangents: Tangents, results: Any
) -> Value | None:
    (t,) = tangents
    return b.convert(t, **op.attributes) if op.result.type.differentiable else None


def _convert_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.convert(ct, to=op.operands[0].type.dtype)


def _convert_lower(hlo: Any, op: Operation, x: Any) -> Any:
    of, to = op.operands[0].type, op.result.type
    if of.dtype.kind == "c" and to.dtype.kind != "c":
        of = of.with_dtype(component(of.dtype))
        (x,) = hlo.op("real", [x], [of])
    if to.dtype is BOOL:
        return lower_compare(hlo, "NE", of, to, x, hlo.constant(0, of))
    return hlo.op("convert", [x], [to])


row(
    name="convert",
    doc="x in the element type `to`; integers by truncation, and of complex numbers the real part.",
    type_rule=_convert_type,
    evaluate=_convert_evaluate,
    derivative=Jvp(_convert_jvp, _convert_transpose),
    batch=batch,
    lower=_convert_lower,
    may_be_nan=True,
    samples=(
        sample("f32[2,3]", to=BOOL),
        sample("f32[2,3]", to=I32, low=-3.0, high=3.0),
        sample("f32[2,3]", to=dtype("bf16")),
        sample("f32[2,3]", to=F32),
        sample("bf16[3]", to=F32),
        sample("f16[3]", to=dtype("i8"), low=-200.0, high=200.0),
        sample("f32[3]", to=dtype("c64")),
        sample("c64[3]", to=F32),
        sample("c64[3]", to=BOOL),
        sample("i32[3]", to=F32),
        sample("i32[3]", to=BOOL),
        sample("i32[3]", to=dtype("u8"), ints=(-300, 300)),
        sample("bool[3]", to=F32),
    ),
)
