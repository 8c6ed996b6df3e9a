"""Reductions over axes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Linear, Zero
from ..dtypes import DType, dtype_of
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import Ints, accumulator, check_axes, others, shifted, transposed

if TYPE_CHECKING:
    from ..build import Builder


# ----------------------------------------------------------------------------------------------- shared rules
def _reduced(x: Type, *, axes: Ints) -> Type:
    check_axes(axes, x.rank, increasing=True)
    return x.with_shape(x.shape[a] for a in others(x.rank, axes))


def _batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    return b.emit(op.opdef, operands, {"axes": shifted(op.attributes["axes"])})[0]


def _lower_with(combine: str, start: Callable[[DType], Any]) -> Callable[..., Any]:
    def lower(hlo: Any, op: Operation, x: Any) -> Any:
        scalar = Type(op.result.type.dtype)
        body = hlo.region([scalar, scalar], lambda pair: hlo.op(combine, pair, [scalar]))
        first = hlo.constant(start(scalar.dtype), scalar)
        axes = op.attributes["axes"]
        return hlo.op("reduce", [x, first], [op.result.type], regions=[body], dimensions=axes)

    return lower


def spread(b: "Builder", x: Value, like: Type, axes: Ints) -> Value:
    """A reduced value, copied along the axes that were reduced."""
    return b.broadcast(x, shape=like.shape, dimensions=others(like.rank, axes))


def smallest(of: DType) -> Any:
    """The least value of a type: what every maximum starts from."""
    return _extreme(of, -1)


def largest(of: DType) -> Any:
    """The greatest value of a type: what every minimum starts from."""
    return _extreme(of, 1)


def _extreme(of: DType, sign: int) -> Any:
    if of.kind == "b":
        return sign > 0
    if of.kind == "f":
        return _extreme_float(of, sign)
    info = ml_dtypes.iinfo(of.numpy)
    return int(info.max if sign > 0 else info.min)


def _extreme_float(of: DType, sign: int) -> Any:
    """An infinity, or the last number of a type without one."""
    with np.errstate(all="ignore"):
        infinity = np.array(sign * np.inf).astype(of.numpy)
    info = ml_dtypes.finfo(of.numpy)
    return infinity[()] if np.isinf(infinity) else info.max if sign > 0 else info.min


# ------------------------------------------------------------------------------------------------ reduce_sum
def _sum_evaluate(x: Any, *, axes: Ints) -> Any:
    return np.asarray(np.sum(x, axis=axes, dtype=accumulator(x.dtype))).astype(x.dtype)


def _sum_summed(b: "Builder", op: Operation, operands: Sequence[Value]) -> Value:
    """The leading axis is one more to sum over."""
    return b.reduce_sum(*operands, axes=(0, *shifted(op.attributes["axes"])))


def _sum_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return spread(b, ct, op.operands[0].type, op.attributes["axes"])


row(
    name="reduce_sum",
    doc="The sum over some axes.",
    type_rule=_reduced,
    evaluate=_sum_evaluate,
    derivative=Linear("all", _sum_transpose),
    batch=_batch,
    lower=_lower_with("add", lambda of: 0),
    summed=_sum_summed,
    may_be_nan=True,
    samples=(
        sample("f32[2,3]", axes=(0,)),
        sample("f32[2,3]", axes=(0, 1)),
        sample("f32[0,3]", axes=(0,)),
        sample("f32[2]", axes=()),
        sample("bf16[4]", axes=(0,)),
        sample("i32[2,3]", axes=(1,)),
    ),
)


# ------------------------------------------------------------------------------------------------ reduce_prod
def _prod_evaluate(x: Any, *, axes: Ints) -> Any:
    return np.asarray(np.prod(x, axis=axes, dtype=accumulator(x.dtype))).astype(x.dtype)


def _prod_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
) -> Value:
    """By the product rule on halves, again and again: no division, so zeros among the factors do no harm."""
    axes = op.attributes["axes"]
    given = tangents[0]
    assert given is not None
    x, t = (_flattened(b, v, axes) for v in (operands[0], given))
    while x.type.shape[0] > 1:
        x, t = _even(b, x, 1), _even(b, t, 0)
        (x0, x1), (t0, t1) = _halves(b, x), _halves(b, t)
        x, t = b.mul(x0, x1), b.add(b.mul(t0, x1), b.mul(t1, x0))
    return b.reshape(t, shape=results[0].type.shape) if t.type.size else b.zeros(results[0].type)


def _flattened(b: "Builder", x: Value, axes: Ints) -> Value:
    """The reduced axes as one leading axis, the others as one behind it."""
    kept = others(x.type.rank, axes)
    rest = int(np.prod([x.type.shape[a] for a in kept], dtype=int))
    length = int(np.prod([x.type.shape[a] for a in axes], dtype=int))
    return b.reshape(transposed(b, x, (*axes, *kept)), shape=(length, rest))


def _even(b: "Builder", x: Value, filler: int) -> Value:
    """`x` with a row of fillers behind an odd number of rows."""
    if x.type.shape[0] % 2 == 0:
        return x
    return b.pad(x, b.constant(filler, Type(x.type.dtype)), low=(0, 0), high=(1, 0), interior=(0, 0))


def _halves(b: "Builder", x: Value) -> tuple[Value, Value]:
    rows, width = x.type.shape
    middle = rows // 2
    first = b.slice(x, start=(0, 0), limit=(middle, width), strides=(1, 1))
    return first, b.slice(x, start=(middle, 0), limit=(rows, width), strides=(1, 1))


row(
    name="reduce_prod",
    doc="The product over some axes.",
    type_rule=_reduced,
    evaluate=_prod_evaluate,
    derivative=Jvp(_prod_jvp),
    batch=_batch,
    lower=_lower_with("multiply", lambda of: 1),
    may_be_nan=True,
    samples=(
        sample("f32[5]", axes=(0,)),
        sample("f32[2,3,2]", axes=(0, 2)),
        sample("f32[2,0]", axes=(1,)),
        sample("f32[2]", axes=()),
        sample("i32[2,3]", axes=(1,)),
    ),
)


# ------------------------------------------------------------------------------------------------ max and min
def _extreme_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
) -> Value:
    """The mean of the tangents at the places where the extreme value stands."""
    x, axes = operands[0], op.attributes["axes"]
    hits = b.convert(b.eq(x, spread(b, results[0], x.type, axes)), to=x.type.dtype)
    count = b.reduce_sum(hits, axes=axes)
    return b.reduce_sum(b.mul(tangents[0], b.div(hits, spread(b, count, x.type, axes))), axes=axes)


def _extreme_row(name: str, doc: str, function: Any, combine: str, start: Callable[[DType], Any]) -> None:
    def evaluate(x: Any, *, axes: Ints) -> Any:
        return np.asarray(function(x, axis=axes, initial=start(dtype_of(x.dtype)))).astype(x.dtype)

    row(
        name=name,
        doc=doc,
        type_rule=_ordered,
        evaluate=evaluate,
        derivative=Jvp(_extreme_jvp),
        batch=_batch,
        lower=_lower_with(combine, start),
        may_be_nan=True,
        samples=(
            sample("f32[2,3]", axes=(1,)),
            sample("f32[2,3]", axes=(0, 1)),
            sample("f32[2]", axes=()),
            sample("bf16[3]", axes=(0,)),
            sample("i32[2,3]", axes=(0,)),
            sample("u8[3]", axes=(0,)),
            sample("bool[3]", axes=(0,)),
        ),
    )


def _ordered(x: Type, *, axes: Ints) -> Type:
    if x.dtype.kind not in "biuf":
        raise IRTypeError(f"{x.dtype} has no order")
    return _reduced(x, axes=axes)


_extreme_row(
    "reduce_max",
    "The largest element over some axes; NaN where there is one. Ties share the derivative.",
    np.max,
    "maximum",
    smallest,
)
_extreme_row(
    "reduce_min",
    "The smallest element over some axes; NaN where there is one. Ties share the derivative.",
    np.min,
    "minimum",
    largest,
)


# ------------------------------------------------------------------------------------------------ and, or
def _bits(x: Type, *, axes: Ints) -> Type:
    if x.dtype.kind not in "biu":
        raise IRTypeError(f"takes booleans or integers, not {x}")
    return _reduced(x, axes=axes)


def _bitwise_row(
    name: str, doc: str, function: np.ufunc, combine: str, start: Callable[[DType], Any]
) -> None:
    def evaluate(x: Any, *, axes: Ints) -> Any:
        return np.asarray(function.reduce(x, axis=axes, initial=start(dtype_of(x.dtype)))).astype(x.dtype)

    row(
        name=name,
        doc=doc,
        type_rule=_bits,
        evaluate=evaluate,
        derivative=Zero("its results are truth values or bits"),
        batch=_batch,
        lower=_lower_with(combine, start),
        samples=(
            sample("bool[2,3]", axes=(1,)),
            sample("bool[0]", axes=(0,)),
            sample("i32[2,3]", axes=(0, 1)),
            sample("u8[3]", axes=(0,)),
        ),
    )


def _all_bits(of: DType) -> Any:
    return -1 if of.kind == "i" else largest(of)


_bitwise_row("reduce_and", "The bitwise and over some axes.", np.bitwise_and, "and", _all_bits)
_bitwise_row("reduce_or", "The bitwise or over some axes.", np.bitwise_or, "or", lambda of: 0)
