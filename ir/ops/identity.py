"""Rows that change no number: what they stop is a derivative or an optimization."""

from typing import TYPE_CHECKING, Any

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Zero
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
