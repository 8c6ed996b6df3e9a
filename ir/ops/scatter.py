"""scatter: many windows of one array replaced or added to. The attributes are explained in `windows`."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Linear
from ..dtypes import I32
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import Ints, accumulator, all_batched
from .gather import ROWS_OF
from .windows import I64, Numbers, elements, numbers_text, room, wide_indices, windows_shape

if TYPE_CHECKING:
    from ..build import Builder


# ------------------------------------------------------------------------------------------------ meaning
def _sizes(numbers: Numbers, shape: Ints, updates: Ints) -> Ints:
    """The sizes of a window on the axes of the operand."""
    sizes = [min(n, 1) for n in shape]
    for a, w in zip(numbers.window_axes(len(shape)), numbers.offset_dims, strict=True):
        sizes[a] = updates[w]
    return tuple(sizes)


def _scatter_type(
    x: Type,
    indices: Type,
    updates: Type,
    *,
    offset_dims: Ints,
    collapsed_dims: Ints,
    index_map: Ints,
    operand_batch_dims: Ints = (),
    indices_batch_dims: Ints = (),
    mode: str,
    indices_are_sorted: bool = False,
    unique_indices: bool = False,
) -> Type:
    numbers = Numbers(offset_dims, collapsed_dims, index_map, operand_batch_dims, indices_batch_dims)
    numbers.check(x, indices, mode)
    sizes = _sizes(numbers, x.shape, updates.shape)
    wanted = x.with_shape(windows_shape(numbers, x.rank, sizes, indices.shape[:-1]))
    if updates != wanted or any(s > n for s, n in zip(sizes, x.shape, strict=True)):
        raise IRTypeError(f"updates must be {wanted} with windows that fit into {x}, not {updates}")
    return x


def _targets(x: Any, indices: Any, updates: Any, attributes: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    """The places to change, and the updates for them, both without what is not inside."""
    numbers = Numbers(*(attributes[name] for name in Numbers._fields))
    sizes = _sizes(numbers, x.shape, updates.shape)
    places, inside = elements(numbers, x.shape, sizes, indices, clip=attributes["mode"] == "clip")
    kept = np.broadcast_to(inside | (attributes["mode"] == "clip"), updates.shape)
    return tuple(np.broadcast_to(p, updates.shape)[kept] for p in places), updates[kept]


def _scatter_evaluate(x: Any, indices: Any, updates: Any, **attributes: Any) -> Any:
    result = np.array(x)
    places, kept = _targets(x, indices, updates, attributes)
    result[places] = kept
    return result


def _scatter_add_evaluate(x: Any, indices: Any, updates: Any, **attributes: Any) -> Any:
    wide = accumulator(x.dtype)
    result = x.astype(wide)
    places, kept = _targets(x, indices, updates, attributes)
    np.add.at(result, places, kept.astype(wide))
    return result.astype(x.dtype)


# ------------------------------------------------------------------------------------------------ rules
def _gathered(b: "Builder", op: Operation, of: Value, indices: Value) -> Value:
    """For each update what stands at its place in `of`; zero where the update is dropped."""
    sizes = _sizes(Numbers.of(op), op.operands[0].type.shape, op.operands[2].type.shape)
    # XLA drops a window outside even where none was promised, and gathers a moved one: fill agrees with it.
    mode = "clip" if op.attributes["mode"] == "clip" else "fill"
    return b.gather(of, indices, **{**op.attributes, "mode": mode}, slice_sizes=sizes)


def _scatter_add_transpose(
    b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents
) -> Value | None:
    indices = operands[1]
    assert indices is not None
    return ct if index == 0 else _gathered(b, op, ct, indices)


def _scatter_transpose(
    b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents
) -> Value | None:
    indices = operands[1]
    assert indices is not None
    if index == 0:
        return b.scatter(ct, indices, b.zeros(op.operands[2].type), **op.attributes)
    found = _gathered(b, op, ct, indices)
    table = op.operands[1].type.shape[:-1]
    if op.attributes["unique_indices"] or math.prod(table) <= 1:
        return found
    return b.select(_winners(b, op, indices), found, b.zeros(found.type))


def _winners(b: "Builder", op: Operation, indices: Value) -> Value:
    """Which updates are there at the end: number them from 1, scatter the numbers, see whose are found."""
    x, updates = op.operands[0].type, op.operands[2].type
    of = I32 if updates.size < 2**31 - 1 else I64
    numbers = b.iota(type=Type(of, (updates.size,)), dimension=0)
    numbers = b.add(numbers, b.constant(1, numbers.type))
    numbers = b.reshape(numbers, shape=updates.shape)
    last = b.scatter(b.zeros(x.with_dtype(of)), indices, numbers, **op.attributes)
    return b.eq(_gathered(b, op, last, indices), numbers)


def _scatter_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    x, indices, updates = all_batched(b, operands, batched)
    attributes, numbers = dict(op.attributes), Numbers.of(op)
    if batched[1]:
        attributes.update(numbers.with_shared_axis()._asdict(), indices_are_sorted=False)
    else:
        indices = operands[1]
        attributes.update(numbers.with_operand_axis()._asdict())
    return b.emit(op.opdef, (x, indices, updates), attributes)[0]


def _lower_with(combine: Callable[[Any, Type, list[Any]], list[Any]]) -> Callable[..., Any]:
    def lower(hlo: Any, op: Operation, x: Any, indices: Any, updates: Any) -> Any:
        attributes, to = op.attributes, op.result.type
        if op.operands[2].type.size == 0:
            return x
        of, indices = wide_indices(hlo, op.operands[1].type, indices)
        if attributes["mode"] == "clip":
            sizes = _sizes(Numbers.of(op), to.shape, op.operands[2].type.shape)
            last = hlo.constant(room(Numbers.of(op), to.shape, sizes, of), of)
            (indices,) = hlo.op("clamp", [hlo.constant(0, of), indices, last], [of])
        scalar = Type(to.dtype)
        return hlo.op(
            "scatter",
            [x, indices, updates],
            [to],
            regions=[hlo.region([scalar, scalar], lambda pair: combine(hlo, scalar, pair))],
            scatter_dimension_numbers=_numbers_text(attributes, of.rank - 1),
            indices_are_sorted=attributes["indices_are_sorted"],
            unique_indices=attributes["unique_indices"],
        )

    return lower


def _numbers_text(attributes: Any, index_vector_dim: int) -> str:
    return numbers_text(
        "scatter",
        index_vector_dim,
        update_window_dims=attributes["offset_dims"],
        inserted_window_dims=attributes["collapsed_dims"],
        input_batching_dims=attributes["operand_batch_dims"],
        scatter_indices_batching_dims=attributes["indices_batch_dims"],
        scatter_dims_to_operand_dims=attributes["index_map"],
    )


# ------------------------------------------------------------------------------------------------ the rows
_FILL = {**ROWS_OF, "mode": "fill"}
_ONE = {**ROWS_OF, "offset_dims": (0,), "unique_indices": True}
_BLOCKS = {**_FILL, "offset_dims": (1, 2), "collapsed_dims": (), "index_map": (1,)}
_OWN = {
    **_FILL,
    "offset_dims": (),
    "collapsed_dims": (1,),
    "index_map": (1,),
    "operand_batch_dims": (0,),
    "indices_batch_dims": (0,),
}
_AROUND = (-1, 4)
_SAMPLES = (
    sample("f32[3,2]", "i32[2,1]", "f32[2,2]", **_FILL, ints=_AROUND),
    sample("f32[3,2]", "i32[4,1]", "f32[4,2]", **ROWS_OF, ints=_AROUND),
    sample("f32[3,2]", "i32[1]", "f32[2]", **_ONE),
    sample("f32[2,3]", "i32[2,1]", "f32[2,2,2]", **_BLOCKS, ints=_AROUND),
    sample("f32[2,3]", "i32[2,2,1]", "f32[2,2]", **_OWN, ints=_AROUND),
    sample("i32[3]", "i32[2,1]", "i32[2]", **{**_FILL, "offset_dims": ()}, ints=_AROUND),
    sample("f32[3,2]", "u8[2,1]", "f32[2,1]", **_FILL, ints=(0, 4)),
    sample("f32[3,2]", "i32[0,1]", "f32[0,2]", **_FILL),
)

row(
    name="scatter",
    doc="The operand with windows replaced; where windows overlap, one of them wins.",
    type_rule=_scatter_type,
    evaluate=_scatter_evaluate,
    derivative=Linear("all", _scatter_transpose),
    batch=_scatter_batch,
    lower=_lower_with(lambda hlo, scalar, pair: pair[1:]),
    samples=_SAMPLES,
)

row(
    name="scatter_add",
    doc="The operand with windows added to it, overlapping ones all.",
    type_rule=_scatter_type,
    evaluate=_scatter_add_evaluate,
    derivative=Linear("all", _scatter_add_transpose),
    batch=_scatter_batch,
    lower=_lower_with(lambda hlo, scalar, pair: hlo.op("add", pair, [scalar])),
    may_be_nan=True,
    samples=_SAMPLES,
)
