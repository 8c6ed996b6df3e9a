"""Running sums and products along one axis."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Linear
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import accumulator, check_axes

if TYPE_CHECKING:
    from ..build import Builder


def _running(x: Type, *, axis: int, reverse: bool = False) -> Type:
    check_axes((axis,), x.rank, "axis")
    if x.dtype.kind not in "iufc":
        raise IRTypeError(f"takes numbers, not {x}")
    return x


def _evaluate_with(function: Any) -> Any:
    def evaluate(x: Any, *, axis: int, reverse: bool) -> Any:
        given = np.flip(x, axis) if reverse else x
        found = function(given, axis=axis, dtype=accumulator(x.dtype)).astype(x.dtype)
        return np.flip(found, axis).copy() if reverse else found

    return evaluate


def _batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    return b.emit(op.opdef, operands, {**op.attributes, "axis": op.attributes["axis"] + 1})[0]


def _lower_with(combine: str, start: int) -> Any:
    def lower(hlo: Any, op: Operation, x: Any) -> Any:
        """A window over everything before: XLA knows this pattern and computes it by prefixes."""
        to, axis = op.result.type, op.attributes["axis"]
        if to.size == 0:
            return x
        scalar, length = Type(to.dtype), to.shape[axis]
        padding = np.zeros((to.rank, 2), np.int64)
        padding[axis, int(op.attributes["reverse"])] = length - 1
        ones = (1,) * to.rank
        return hlo.op(
            "reduce_window",
            [x, hlo.constant(start, scalar)],
            [to],
            regions=[hlo.region([scalar, scalar], lambda pair: hlo.op(combine, pair, [scalar]))],
            window_dimensions=tuple(length if a == axis else 1 for a in range(to.rank)),
            window_strides=ones,
            base_dilations=ones,
            window_dilations=ones,
            padding=padding,
        )

    return lower


_SAMPLES = (
    sample("f32[2,3]", axis=1, reverse=False),
    sample("f32[5,2]", axis=0, reverse=True),
    sample("f32[1]", axis=0, reverse=False),
    sample("f32[0]", axis=0, reverse=False),
    sample("i32[4]", axis=0, reverse=False),
    sample("bf16[3]", axis=0, reverse=True),
)


# ------------------------------------------------------------------------------------------------ cumsum
def _cumsum_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.cumsum(ct, axis=op.attributes["axis"], reverse=not op.attributes["reverse"])


row(
    name="cumsum",
    doc="Element i is the sum of the elements up to i along an axis; from i on, if reversed.",
    type_rule=_running,
    evaluate=_evaluate_with(np.cumsum),
    derivative=Linear("all", _cumsum_transpose),
    batch=_batch,
    lower=_lower_with("add", 0),
    may_be_nan=True,
    samples=_SAMPLES,
)


# ------------------------------------------------------------------------------------------------ cumprod
def _cumprod_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
) -> Value:
    """Each step doubles the factors an element covers, by the product rule: no division, zeros do no harm."""
    x, t = operands[0], tangents[0]
    assert t is not None
    step, length = 1, x.type.shape[op.attributes["axis"]]
    while step < length:
        x0, t0 = _from_before(b, op, x, step, 1), _from_before(b, op, t, step, 0)
        x, t = b.mul(x, x0), b.add(b.mul(t, x0), b.mul(t0, x))
        step *= 2
    return t


def _from_before(b: "Builder", op: Operation, x: Value, step: int, filler: int) -> Value:
    """At each place what stands `step` places before it, and the filler where nothing does."""
    axis, sign = op.attributes["axis"], -1 if op.attributes["reverse"] else 1
    low, high = ([0] * x.type.rank for _ in range(2))
    low[axis], high[axis] = sign * step, -sign * step
    scalar = b.constant(filler, Type(x.type.dtype))
    return b.pad(x, scalar, low=tuple(low), high=tuple(high), interior=(0,) * x.type.rank)


row(
    name="cumprod",
    doc="Element i is the product of the elements up to i along an axis; from i on, if reversed.",
    type_rule=_running,
    evaluate=_evaluate_with(np.cumprod),
    derivative=Jvp(_cumprod_jvp),
    batch=_batch,
    lower=_lower_with("multiply", 1),
    may_be_nan=True,
    samples=_SAMPLES,
)
