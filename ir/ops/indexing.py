"""Rows that cut out, put in and pad at fixed or computed places."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Linear
from ..errors import IRTypeError
from ..opdef import Sample, Tangents, row, sample
from .axes import (
    Ints,
    all_batched,
    batch_size,
    check_lengths,
    hidden_axes,
    own,
    with_batch_axis,
)

if TYPE_CHECKING:
    from ..build import Builder


# ------------------------------------------------------------------------------------------------ slice
def _slice_type(x: Type, *, start: Ints, limit: Ints, strides: Ints) -> Type:
    check_lengths(x.rank, start=start, limit=limit, strides=strides)
    for n, a, z, s in zip(x.shape, start, limit, strides, strict=True):
        if not (0 <= a <= z <= n and s > 0):
            raise IRTypeError(f"the slice {a}:{z}:{s} does not fit an axis of length {n}")
    return x.with_shape(-(-(z - a) // s) for a, z, s in zip(start, limit, strides, strict=True))


def _slice_evaluate(x: Any, *, start: Ints, limit: Ints, strides: Ints) -> Any:
    return own(x[tuple(slice(a, z, s) for a, z, s in zip(start, limit, strides, strict=True))])


def _slice_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    start, strides = op.attributes["start"], op.attributes["strides"]
    covered = [(n - 1) * s + 1 if n else 0 for n, s in zip(ct.type.shape, strides, strict=True)]
    high = (n - a - c for n, a, c in zip(op.operands[0].type.shape, start, covered, strict=True))
    zero = b.zeros(Type(ct.type.dtype))
    return b.pad(ct, zero, low=start, high=tuple(high), interior=tuple(s - 1 for s in strides))


def _slice_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    (x,) = operands
    start, limit, strides = (op.attributes[name] for name in ("start", "limit", "strides"))
    return b.slice(x, start=(0, *start), limit=(x.type.shape[0], *limit), strides=(1, *strides))


def _slice_lower(hlo: Any, op: Operation, x: Any) -> Any:
    hidden = hidden_axes(hlo, op.result.type)
    start, limit, strides = (op.attributes[name] for name in ("start", "limit", "strides"))
    return hlo.op(
        "slice",
        [x],
        [op.result.type],
        start_indices=(*start, *(0 for _ in hidden)),
        limit_indices=(*limit, *hidden),
        strides=(*strides, *(1 for _ in hidden)),
    )


row(
    name="slice",
    doc="The elements from start up to limit in steps of strides, on each axis.",
    type_rule=_slice_type,
    evaluate=_slice_evaluate,
    derivative=Linear("all", _slice_transpose),
    batch=_slice_batch,
    lower=_slice_lower,
    samples=(
        sample("f32[3,4]", start=(1, 0), limit=(3, 4), strides=(1, 3)),
        sample("f32[5]", start=(0,), limit=(4,), strides=(2,)),
        sample("f32[3]", start=(2,), limit=(2,), strides=(1,)),
        sample("i32[3]", start=(1,), limit=(3,), strides=(1,)),
    ),
)


# ------------------------------------------------------------------------------------------------ pad
def _pad_type(x: Type, padding: Type, *, low: Ints, high: Ints, interior: Ints) -> Type:
    check_lengths(x.rank, low=low, high=high, interior=interior)
    if padding != Type(x.dtype):
        raise IRTypeError(f"the padding must be {Type(x.dtype)}")
    shape = [a + n + max(n - 1, 0) * i + z for n, a, z, i in zip(x.shape, low, high, interior, strict=True)]
    if any(n < 0 for n in shape) or any(i < 0 for i in interior):
        raise IRTypeError(
            f"low = {list(low)}, high = {list(high)}, interior = {list(interior)} remove too much"
        )
    return x.with_shape(shape)


def _pad_evaluate(x: Any, padding: Any, *, low: Ints, high: Ints, interior: Ints) -> Any:
    shape = _pad_type(Type.of(x), Type.of(padding), low=low, high=high, interior=interior).shape
    result = np.full(shape, padding, x.dtype)
    places = [a + np.arange(n) * (i + 1) for n, a, i in zip(x.shape, low, interior, strict=True)]
    kept = [np.flatnonzero((p >= 0) & (p < n)) for p, n in zip(places, shape, strict=True)]
    result[np.ix_(*(p[k] for p, k in zip(places, kept, strict=True)))] = x[np.ix_(*kept)]
    return result


def _pad_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    if index == 1:
        return _pad_transpose_padding(b, op, ct)
    low, high, interior = (op.attributes[name] for name in ("low", "high", "interior"))
    rank = ct.type.rank
    if any(n < 0 for n in (*low, *high)):
        zero = b.zeros(Type(ct.type.dtype))
        back = {"low": tuple(-n for n in low), "high": tuple(-n for n in high), "interior": (0,) * rank}
        ct, low, high = b.pad(ct, zero, **back), (0,) * rank, (0,) * rank
    limit = tuple(n - z for n, z in zip(ct.type.shape, high, strict=True))
    return b.slice(ct, start=low, limit=limit, strides=tuple(i + 1 for i in interior))


def _pad_transpose_padding(b: "Builder", op: Operation, ct: Value) -> Value:
    """The sum of the cotangent over the places that no element of the operand reached."""
    scalar = Type(ct.type.dtype)
    inside = b.zeros(op.operands[0].type)
    reached = b.pad(inside, b.constant(1, scalar), **op.attributes)
    return b.reduce_sum(b.mul(ct, reached), axes=tuple(range(ct.type.rank)))


def _pad_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    x, padding = operands
    size = batch_size(operands, batched)
    x = x if batched[0] else with_batch_axis(b, x, size)
    moved = {name: (0, *found) for name, found in op.attributes.items()}
    if not batched[1]:
        return b.pad(x, padding, **moved)
    scalar = Type.parse("bool[]")
    inside = b.constant(True, Type(scalar.dtype, x.type.shape))
    reached = b.pad(inside, b.constant(False, scalar), **moved)
    padded = b.pad(x, b.zeros(Type(x.type.dtype)), **moved)
    around = b.broadcast(padding, shape=padded.type.shape, dimensions=(0,))
    return b.select(reached, padded, around)


def _pad_lower(hlo: Any, op: Operation, x: Any, padding: Any) -> Any:
    low, high, interior = (op.attributes[name] for name in ("low", "high", "interior"))
    return hlo.op(
        "pad",
        [x, padding],
        [op.result.type],
        edge_padding_low=low,
        edge_padding_high=high,
        interior_padding=interior,
    )


def _pad_sample(of: str, low: Ints, high: Ints, interior: Ints) -> Sample:
    x = Type.parse(of)
    return Sample((x, Type(x.dtype)), {"low": low, "high": high, "interior": interior})


row(
    name="pad",
    doc="Puts copies of a scalar before, behind and between the elements; negative counts remove elements.",
    type_rule=_pad_type,
    evaluate=_pad_evaluate,
    derivative=Linear("all", _pad_transpose),
    batch=_pad_batch,
    lower=_pad_lower,
    samples=(
        _pad_sample("f32[2,3]", (1, 0), (0, 2), (0, 1)),
        _pad_sample("f32[3]", (-1,), (2,), (0,)),
        _pad_sample("f32[4]", (-1,), (-2,), (1,)),
        _pad_sample("f32[1]", (-2,), (3,), (0,)),
        _pad_sample("f32[0]", (1,), (1,), (2,)),
        _pad_sample("f32[]", (), (), ()),
        _pad_sample("i32[2]", (1,), (1,), (0,)),
    ),
)


# --------------------------------------------------------------------------------------------- dynamic slices
def _check_places(x: Type, places: Sequence[Type]) -> None:
    if len(places) != x.rank or any(p.rank or p.dtype.kind not in "iu" for p in places):
        raise IRTypeError(f"{x} needs {x.rank} integer scalars as places")
    if any(p is not places[0] and p != places[0] for p in places):
        raise IRTypeError("the places must all have the same type")


def _clamped(shape: Ints, sizes: Ints, places: Sequence[Any]) -> tuple[slice, ...]:
    starts = (min(max(int(p), 0), n - s) for n, s, p in zip(shape, sizes, places, strict=True))
    return tuple(slice(a, a + s) for a, s in zip(starts, sizes, strict=True))


def _as_one_index(b: "Builder", places: Sequence[Value], batched: Sequence[bool]) -> Value:
    """Batched places side by side: one row of indices per example."""
    columns = all_batched(b, places, batched)
    return b.concatenate(*(b.reshape(p, shape=(*p.type.shape, 1)) for p in columns), dimension=1)


def _windows(rank: int, *, example: bool) -> dict[str, Any]:
    """Gather's numbers for one whole window per example; with `example`, each out of its own operand."""
    first = int(example)
    return {
        "offset_dims": tuple(range(1, rank + 1)),
        "collapsed_dims": (),
        "index_map": tuple(range(first, rank + first)),
        "operand_batch_dims": (0,) * first,
        "indices_batch_dims": (0,) * first,
        "mode": "clip",
        "indices_are_sorted": False,
    }


def _dynamic_slice_type(x: Type, *places: Type, sizes: Ints) -> Type:
    _check_places(x, places)
    check_lengths(x.rank, sizes=sizes)
    if any(not 0 <= s <= n for s, n in zip(sizes, x.shape, strict=True)):
        raise IRTypeError(f"a window of sizes {list(sizes)} does not fit into {x}")
    return x.with_shape(sizes)


def _dynamic_slice_evaluate(x: Any, *places: Any, sizes: Ints) -> Any:
    return own(x[_clamped(x.shape, sizes, places)])


def _dynamic_slice_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.dynamic_update_slice(b.zeros(op.operands[0].type), ct, *operands[1:])


def _dynamic_slice_batch(
    b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]
) -> Value:
    (x, *places), sizes = operands, op.attributes["sizes"]
    if not any(batched[1:]):
        first = b.zeros(places[0].type) if places else b.constant(0, Type.parse("i32[]"))
        return b.dynamic_slice(x, first, *places, sizes=(x.type.shape[0], *sizes))
    indices = _as_one_index(b, places, batched[1:])
    each = (min(1, x.type.shape[0]),) if batched[0] else ()
    numbers = _windows(len(sizes), example=batched[0])
    return b.gather(x, indices, **numbers, unique_indices=False, slice_sizes=(*each, *sizes))


def _dynamic_slice_lower(hlo: Any, op: Operation, x: Any, *places: Any) -> Any:
    hidden = hidden_axes(hlo, op.result.type)
    zeros = [hlo.constant(0, op.operands[1].type) for _ in hidden] if places else []
    if hidden and not places:
        return x
    sizes = (*op.attributes["sizes"], *hidden)
    return hlo.op("dynamic_slice", [x, *places, *zeros], [op.result.type], slice_sizes=sizes)


row(
    name="dynamic_slice",
    doc="The window of the given sizes at computed places, one per axis; it is moved to lie inside.",
    type_rule=_dynamic_slice_type,
    evaluate=_dynamic_slice_evaluate,
    derivative=Linear("all", _dynamic_slice_transpose),
    batch=_dynamic_slice_batch,
    lower=_dynamic_slice_lower,
    samples=(
        sample("f32[3,4]", "i32[]", "i32[]", ints=(-1, 4), sizes=(2, 1)),
        sample("f32[3]", "i32[]", sizes=(3,)),
        sample("f32[3]", "i32[]", sizes=(0,)),
        sample("i32[3]", "i32[]", sizes=(2,)),
        sample("f32[]", sizes=()),
    ),
)


def _update_type(x: Type, update: Type, *places: Type) -> Type:
    _check_places(x, places)
    if update.dtype is not x.dtype or update.rank != x.rank:
        raise IRTypeError(f"{update} cannot be put into {x}")
    if any(s > n for s, n in zip(update.shape, x.shape, strict=True)):
        raise IRTypeError(f"{update} does not fit into {x}")
    return x


def _update_evaluate(x: Any, update: Any, *places: Any) -> Any:
    result = np.array(x)
    result[_clamped(x.shape, update.shape, places)] = update
    return result


def _update_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    update, places = op.operands[1].type, operands[2:]
    if index == 1:
        return b.dynamic_slice(ct, *places, sizes=update.shape)
    return b.dynamic_update_slice(ct, b.zeros(update), *places)


def _update_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    x, update = all_batched(b, operands, batched)[:2]
    places = operands[2:]
    if not any(batched[2:]):
        first = b.zeros(places[0].type) if places else b.constant(0, Type.parse("i32[]"))
        return b.dynamic_update_slice(x, update, first, *places)
    indices = _as_one_index(b, places, batched[2:])
    numbers = _windows(update.type.rank - 1, example=True)
    return b.scatter(x, indices, update, **numbers, unique_indices=True)


row(
    name="dynamic_update_slice",
    doc="The first operand with the second in it, at computed places; it is moved to lie inside.",
    type_rule=_update_type,
    evaluate=_update_evaluate,
    derivative=Linear("all", _update_transpose),
    batch=_update_batch,
    lower="dynamic_update_slice",
    samples=(
        sample("f32[3,4]", "f32[2,1]", "i32[]", "i32[]", ints=(-1, 4)),
        sample("f32[3]", "f32[3]", "i32[]"),
        sample("f32[3]", "f32[0]", "i32[]"),
        sample("i32[3]", "i32[2]", "i32[]"),
        sample("f32[]", "f32[]"),
    ),
)
