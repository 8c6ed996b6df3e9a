"""Rows that rearrange elements without choosing among them: all are linear, with a fixed pattern."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Linear
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import (
    Ints,
    all_batched,
    check_axes,
    hidden_axes,
    inverse,
    others,
    reshaped,
    shifted,
)

if TYPE_CHECKING:
    from ..build import Builder


# ------------------------------------------------------------------------------------------------ reshape
def _reshape_type(x: Type, *, shape: Ints) -> Type:
    result = x.with_shape(shape)
    if result.size != x.size or any(d < 0 for d in shape):
        raise IRTypeError(f"{x.size} elements do not fill the shape {list(shape)}")
    return result


def _reshape_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.reshape(ct, shape=op.operands[0].type.shape)


def _reshape_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    (x,) = operands
    return b.reshape(x, shape=(x.type.shape[0], *op.attributes["shape"]))


row(
    name="reshape",
    doc="The same elements, in row-major order, in another shape.",
    type_rule=_reshape_type,
    evaluate=lambda x, *, shape: x.reshape(shape),
    derivative=Linear("all", _reshape_transpose),
    batch=_reshape_batch,
    lower="reshape",
    samples=(
        sample("f32[2,3]", shape=(3, 2)),
        sample("f32[]", shape=(1, 1)),
        sample("i32[2,2]", shape=(4,)),
        sample("f32[0,3]", shape=(3, 0)),
    ),
)


# ------------------------------------------------------------------------------------------------ transpose
def _transpose_type(x: Type, *, permutation: Ints) -> Type:
    check_axes(permutation, x.rank, "permutation")
    if len(permutation) != x.rank:
        raise IRTypeError(f"permutation = {list(permutation)} does not name all {x.rank} axes of {x}")
    return x.with_shape(x.shape[p] for p in permutation)


def _transpose_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.transpose(ct, permutation=inverse(op.attributes["permutation"]))


def _transpose_batch(
    b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]
) -> Value:
    return b.transpose(operands[0], permutation=(0, *shifted(op.attributes["permutation"])))


def _transpose_lower(hlo: Any, op: Operation, x: Any) -> Any:
    of = op.operands[0].type
    hidden = range(of.rank, of.rank + len(hidden_axes(hlo, of)))
    permutation = (*op.attributes["permutation"], *hidden)
    return hlo.op("transpose", [x], [op.result.type], permutation=permutation)


row(
    name="transpose",
    doc="Axis i of the result is axis permutation[i] of the operand.",
    type_rule=_transpose_type,
    evaluate=lambda x, *, permutation: x.transpose(permutation),
    derivative=Linear("all", _transpose_transpose),
    batch=_transpose_batch,
    lower=_transpose_lower,
    samples=(
        sample("f32[2,3,4]", permutation=(1, 2, 0)),
        sample("f32[]", permutation=()),
        sample("bool[2,3]", permutation=(1, 0)),
    ),
)


# ------------------------------------------------------------------------------------------------ broadcast
def _broadcast_type(x: Type, *, shape: Ints, dimensions: Ints) -> Type:
    check_axes(dimensions, len(shape), "dimensions", increasing=True)
    if len(dimensions) != x.rank or any(
        n not in (1, shape[d]) for n, d in zip(x.shape, dimensions, strict=False)
    ):
        raise IRTypeError(f"axes {list(x.shape)} cannot become axes {list(dimensions)} of {list(shape)}")
    return x.with_shape(shape)


def _broadcast_evaluate(x: Any, *, shape: Ints, dimensions: Ints) -> Any:
    aligned = [1] * len(shape)
    for n, d in zip(x.shape, dimensions, strict=True):
        aligned[d] = n
    # Arrays of keys can be reshaped and indexed, and no more.
    return x.reshape(-1)[np.broadcast_to(np.arange(x.size).reshape(aligned), shape)]


def _broadcast_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    of, dimensions = op.operands[0].type, op.attributes["dimensions"]
    kept = [d for n, d in zip(of.shape, dimensions, strict=True) if n == ct.type.shape[d]]
    summed = others(ct.type.rank, kept)
    return reshaped(b, b.reduce_sum(ct, axes=summed) if summed else ct, of.shape)


def _broadcast_batch(
    b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]
) -> Value:
    (x,) = operands
    shape = (x.type.shape[0], *op.attributes["shape"])
    return b.broadcast(x, shape=shape, dimensions=(0, *shifted(op.attributes["dimensions"])))


def _broadcast_lower(hlo: Any, op: Operation, x: Any) -> Any:
    to = op.result.type
    hidden = range(to.rank, to.rank + len(hidden_axes(hlo, to)))
    dimensions = (*op.attributes["dimensions"], *hidden)
    return hlo.op("broadcast_in_dim", [x], [to], broadcast_dimensions=dimensions)


row(
    name="broadcast",
    doc="Axis i of the operand, as long or of length 1, becomes axis dimensions[i]; the rest are copies.",
    type_rule=_broadcast_type,
    evaluate=_broadcast_evaluate,
    derivative=Linear("all", _broadcast_transpose),
    batch=_broadcast_batch,
    lower=_broadcast_lower,
    samples=(
        sample("f32[]", shape=(2, 3), dimensions=()),
        sample("f32[3]", shape=(2, 3), dimensions=(1,)),
        sample("f32[2,1]", shape=(2, 3, 4), dimensions=(0, 2)),
        sample("f32[1]", shape=(0,), dimensions=(0,)),
        sample("i32[3]", shape=(3, 1), dimensions=(0,)),
    ),
)


# ------------------------------------------------------------------------------------------------ reverse
def _reverse_type(x: Type, *, dimensions: Ints) -> Type:
    check_axes(dimensions, x.rank, "dimensions", increasing=True)
    return x


def _reverse_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.reverse(ct, **op.attributes)


def _reverse_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    return b.reverse(operands[0], dimensions=shifted(op.attributes["dimensions"]))


def _reverse_lower(hlo: Any, op: Operation, x: Any) -> Any:
    return hlo.op("reverse", [x], [op.result.type], dimensions=op.attributes["dimensions"])


row(
    name="reverse",
    doc="The elements in opposite order along some axes.",
    type_rule=_reverse_type,
    evaluate=lambda x, *, dimensions: np.flip(x, dimensions).copy(),
    derivative=Linear("all", _reverse_transpose),
    batch=_reverse_batch,
    lower=_reverse_lower,
    samples=(
        sample("f32[2,3]", dimensions=(0, 1)),
        sample("i32[3]", dimensions=(0,)),
        sample("f32[2]", dimensions=()),
    ),
)


# ------------------------------------------------------------------------------------------------ concatenate
def _concatenate_type(first: Type, *rest: Type, dimension: int) -> Type:
    check_axes((dimension,), first.rank, "dimension")
    total = first.shape[dimension]
    for x in rest:
        if x.dtype is not first.dtype or _without(x.shape, dimension) != _without(first.shape, dimension):
            raise IRTypeError(f"{first} and {x} do not fit together along axis {dimension}")
        total += x.shape[dimension]
    return first.with_shape((*first.shape[:dimension], total, *first.shape[dimension + 1 :]))


def _without(shape: Ints, axis: int) -> Ints:
    return shape[:axis] + shape[axis + 1 :]


def _concatenate_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    axis = op.attributes["dimension"]
    start, limit = [0] * ct.type.rank, list(ct.type.shape)
    start[axis] = sum(x.type.shape[axis] for x in op.operands[:index])
    limit[axis] = start[axis] + op.operands[index].type.shape[axis]
    return b.slice(ct, start=tuple(start), limit=tuple(limit), strides=(1,) * ct.type.rank)


def _concatenate_batch(
    b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]
) -> Value:
    return b.concatenate(*all_batched(b, operands, batched), dimension=op.attributes["dimension"] + 1)


def _concatenate_lower(hlo: Any, op: Operation, *operands: Any) -> Any:
    return hlo.op("concatenate", operands, [op.result.type], dimension=op.attributes["dimension"])


row(
    name="concatenate",
    doc="The operands one after the other along an axis.",
    type_rule=_concatenate_type,
    evaluate=lambda *operands, dimension: np.concatenate(operands, dimension),
    derivative=Linear("all", _concatenate_transpose),
    batch=_concatenate_batch,
    lower=_concatenate_lower,
    samples=(
        sample("f32[2,1]", "f32[2,3]", dimension=1),
        sample("f32[2]", "f32[0]", "f32[1]", dimension=0),
        sample("f32[2]", dimension=0),
        sample("i32[1]", "i32[2]", dimension=0),
    ),
)
