"""Rows that change no number: what they stop is a derivative or an optimization."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Zero
from ..dtypes import dtype
from ..errors import IRTypeError
from ..opdef import Row, Tangents, register, row, sample
from .common import alike, batch, itself

if TYPE_CHECKING:
    from ..build import Builder

row(
    name="copy",
    doc="x.",
    type_rule=alike("biufck", 1),
    evaluate=lambda x: x,
    derivative=itself(lambda b, ct: ct),
    batch=batch,
    lower=lambda hlo, op, x: x,
    samples=(sample("f32[2,3]"), sample("i32[2]")),
)
row(
    name="stop_gradient",
    doc="x, as a constant for derivatives.",
    type_rule=alike("biufck", 1),
    evaluate=lambda x: x,
    derivative=Zero("that is what it is for"),
    batch=batch,
    lower=lambda hlo, op, x: x,
    samples=(sample("f32[2,3]"), sample("i32[2]")),
)


# --------------------------------------------------------------------------------------- optimization_barrier
class BarrierRow(Row):
    """A row of as many results as operands, each linear in its own."""

    def transpose_of(
        self, b: "Builder", op: Operation, cotangents: Tangents, operands: Tangents
    ) -> list[Value | None]:
        return [ct if x is None else None for ct, x in zip(cotangents, operands, strict=True)]


def _pass_through(
    b: "Builder", op: Operation, operands: Any, tangents: Tangents, results: Any
) -> tuple[Any, ...]:
    return tuple(tangents)


def _barrier_type(*types: Type) -> tuple[Type, ...]:
    return types


register(
    BarrierRow(
        name="optimization_barrier",
        doc="The operands, all computed before one is used. Derivatives pass without a barrier.",
        type_rule=_barrier_type,
        evaluate=lambda *operands: operands,
        derivative=Jvp(_pass_through),
        batch=batch,
        lower=lambda hlo, op, *operands: hlo.op(
            "optimization_barrier", operands, [r.type for r in op.results]
        ),
        samples=(sample("f32[2,3]", "i32[2]"), sample("f32[2]", "f32[]"), sample("f32[]")),
    )
)


# --------------------------------------------------------------------------------------------------- after
_U32 = Type.parse("u32[]")


def _after_type(x: Type, done: Type) -> Type:
    if done.dtype.kind != "f" or not done.size:
        raise IRTypeError(f"what is waited for must be an array of real numbers, not {done}")
    return x


def _after_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    """One wait serves all elements."""
    x, done = operands
    if not batched[0]:
        size = done.type.shape[0]
        x = b.broadcast(x, shape=(size, *x.type.shape), dimensions=tuple(range(1, x.type.rank + 1)))
    return b.after(x, done)


def _after_lower(hlo: Any, op: Operation, x: Any, done: Any) -> Any:
    """A barrier. Where compilers merge equal operations only after barriers are gone, a choice by a number of
    the other operand instead: no compiler sees that a sign bit, shifted down, is always below two.
    """
    types = [v.type for v in op.operands]
    if hlo.keeps_barriers:
        return hlo.op("optimization_barrier", [x, done], types)[0]
    first, scalar = types[1].with_shape((1,) * types[1].rank), types[1].with_shape(())
    ones = first.shape
    (done,) = hlo.op(
        "slice", [done], [first], start_indices=[0] * len(ones), limit_indices=ones, strides=ones
    )
    (done,) = hlo.op("reshape", [done], [scalar])
    (done,) = hlo.op("convert", [done], [scalar.with_dtype(dtype("f32"))])
    (done,) = hlo.op("bitcast_convert", [done], [_U32])
    (done,) = hlo.op("shift_right_logical", [done, hlo.constant(31, _U32)], [_U32])
    two = hlo.constant(2, _U32)
    way = {"comparison_direction": "#stablehlo<comparison_direction LT>"}
    (done,) = hlo.op("compare", [done, two], [_U32.with_dtype(dtype("bool"))], **way)
    return hlo.op("select", [done, x, hlo.constant(0, types[0])], [types[0]])[0]


row(
    name="after",
    doc="x, once the other operand is there. What is made of it is not merged with what else is made of x.",
    type_rule=_after_type,
    evaluate=lambda x, done: x,
    derivative=Jvp(lambda b, op, operands, tangents, results: tangents[0]),
    batch=_after_batch,
    lower=_after_lower,
    samples=(sample("f32[2,3]", "f32[4]"), sample("i32[2]", "f64[]"), sample("bf16[3]", "bf16[1,2]")),
)
