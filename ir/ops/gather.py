"""gather: many windows of one array. The attributes are explained in `windows`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Linear
from ..dtypes import BOOL
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import Ints, batch_size, check_lengths, others
from .windows import Numbers, elements, numbers_text, room, wide_indices, windows_shape

if TYPE_CHECKING:
    from ..build import Builder


# ------------------------------------------------------------------------------------------------ meaning
def _gather_type(
    x: Type,
    indices: Type,
    *,
    offset_dims: Ints,
    collapsed_dims: Ints,
    index_map: Ints,
    operand_batch_dims: Ints = (),
    indices_batch_dims: Ints = (),
    slice_sizes: Ints,
    mode: str,
    indices_are_sorted: bool = False,
    unique_indices: bool = False,
) -> Type:
    numbers = Numbers(offset_dims, collapsed_dims, index_map, operand_batch_dims, indices_batch_dims)
    numbers.check(x, indices, mode)
    check_lengths(x.rank, slice_sizes=slice_sizes)
    single = (*collapsed_dims, *operand_batch_dims)
    fits = all(0 <= s <= n for s, n in zip(slice_sizes, x.shape, strict=True))
    if not fits or any(slice_sizes[a] > 1 for a in single):
        raise IRTypeError(f"windows of sizes {list(slice_sizes)} do not fit {x}")
    return x.with_shape(windows_shape(numbers, x.rank, slice_sizes, indices.shape[:-1]))


def _gather_filled_type(
    x: Type,
    indices: Type,
    *,
    offset_dims: Ints,
    collapsed_dims: Ints,
    index_map: Ints,
    operand_batch_dims: Ints = (),
    indices_batch_dims: Ints = (),
    slice_sizes: Ints,
    indices_are_sorted: bool = False,
    unique_indices: bool = False,
    fill_value: Any,
) -> Type:
    return _gather_type(
        x,
        indices,
        offset_dims=offset_dims,
        collapsed_dims=collapsed_dims,
        index_map=index_map,
        operand_batch_dims=operand_batch_dims,
        indices_batch_dims=indices_batch_dims,
        slice_sizes=slice_sizes,
        mode="fill",
        indices_are_sorted=indices_are_sorted,
        unique_indices=unique_indices,
    )


def _gather_evaluate(x: Any, indices: Any, *, fill_value: Any = 0, **attributes: Any) -> Any:
    numbers = Numbers(*(attributes[name] for name in Numbers._fields))
    sizes = attributes["slice_sizes"]
    places, inside = elements(numbers, x.shape, sizes, indices, clip=True)
    shape = windows_shape(numbers, x.ndim, sizes, indices.shape[:-1])
    if 0 in shape:
        return np.zeros(shape, x.dtype)
    found = np.broadcast_to(x[places], shape).copy()
    if attributes.get("mode", "fill") == "fill":
        found[~np.broadcast_to(inside, shape)] = fill_value
    return found


# -------------------------------------------------------------------------------------------- rules of gather
def _scatter_attributes(op: Operation) -> dict[str, Any]:
    names = (*Numbers._fields, "mode", "indices_are_sorted", "unique_indices")
    return {name: op.attributes[name] for name in names}


def _gather_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    zeros = b.zeros(op.operands[0].type)
    return b.scatter_add(zeros, operands[1], ct, **_scatter_attributes(op))


def _gather_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    numbers, attributes = Numbers.of(op), dict(op.attributes)
    size, sizes = batch_size(operands, batched), attributes["slice_sizes"]
    if all(batched):
        numbers, sizes = numbers.with_shared_axis(), (min(size, 1), *sizes)
        attributes["indices_are_sorted"] = False
    elif batched[0]:
        numbers, sizes = numbers.with_operand_axis(), (size, *sizes)
    else:
        numbers = numbers.with_indices_axis()
        attributes["indices_are_sorted"] = attributes["unique_indices"] = False
    attributes.update(numbers._asdict(), slice_sizes=sizes)
    return b.emit(op.opdef, operands, attributes)[0]


def _inside_mask(hlo: Any, op: Operation, of: Type, indices: Any) -> Any:
    """For each element of the result, whether its window lies inside the operand."""
    flags, to = of.with_dtype(BOOL), op.result.type
    last = room(Numbers.of(op), op.operands[0].type.shape, op.attributes["slice_sizes"], of)
    tests = [
        hlo.op("compare", [indices, hlo.constant(bound, of)], [flags], comparison_direction=direction)[0]
        for direction, bound in ((_GE, 0), (_LE, last))
    ]
    (each,) = hlo.op("and", tests, [flags])
    scalar, table = Type(BOOL), flags.with_shape(of.shape[:-1])
    body = hlo.region([scalar, scalar], lambda pair: hlo.op("and", pair, [scalar]))
    true = hlo.constant(True, scalar)
    (whole,) = hlo.op("reduce", [each, true], [table], regions=[body], dimensions=(of.rank - 1,))
    along = others(to.rank, op.attributes["offset_dims"])
    return hlo.op("broadcast_in_dim", [whole], [to.with_dtype(BOOL)], broadcast_dimensions=along)[0]


_GE, _LE = "#stablehlo<comparison_direction GE>", "#stablehlo<comparison_direction LE>"


def _gather_lower(hlo: Any, op: Operation, x: Any, indices: Any) -> Any:
    attributes, to = op.attributes, op.result.type
    if to.size == 0:
        return hlo.constant(0, to)
    of, indices = wide_indices(hlo, op.operands[1].type, indices)
    numbers = numbers_text(
        "gather",
        of.rank - 1,
        offset_dims=attributes["offset_dims"],
        collapsed_slice_dims=attributes["collapsed_dims"],
        operand_batching_dims=attributes["operand_batch_dims"],
        start_indices_batching_dims=attributes["indices_batch_dims"],
        start_index_map=attributes["index_map"],
    )
    found = hlo.op(
        "gather",
        [x, indices],
        [to],
        dimension_numbers=numbers,
        slice_sizes=attributes["slice_sizes"],
        indices_are_sorted=attributes["indices_are_sorted"],
    )
    if attributes.get("mode", "fill") != "fill":
        return found
    fill = hlo.constant(attributes.get("fill_value", 0), to)
    return hlo.op("select", [_inside_mask(hlo, op, of, indices), *found, fill], [to])


def _gather_filled_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
) -> Value | None:
    if tangents[0] is None:
        return None
    attributes = {name: found for name, found in op.attributes.items() if name != "fill_value"}
    return b.gather(tangents[0], operands[1], **attributes, mode="fill")


# ------------------------------------------------------------------------------------------------ the rows
ROWS_OF = {
    "offset_dims": (1,),
    "collapsed_dims": (0,),
    "index_map": (0,),
    "operand_batch_dims": (),
    "indices_batch_dims": (),
    "mode": "clip",
    "indices_are_sorted": False,
    "unique_indices": False,
}
"""The attributes that pick rows of a matrix, as `x[indices]` does."""

_AROUND = (-1, 4)
_EACH_ITS_OWN = {
    **ROWS_OF,
    "offset_dims": (),
    "collapsed_dims": (1,),
    "index_map": (1,),
    "operand_batch_dims": (0,),
    "indices_batch_dims": (0,),
}
_FILLED = {name: found for name, found in ROWS_OF.items() if name != "mode"}
_BLOCKS = {**ROWS_OF, "offset_dims": (0, 2), "collapsed_dims": (), "index_map": (1, 0)}

row(
    name="gather",
    doc="A window of the operand for each place in a table; in mode fill, zeros for one that is not inside.",
    type_rule=_gather_type,
    evaluate=_gather_evaluate,
    derivative=Linear("all", _gather_transpose),
    batch=_gather_batch,
    lower=_gather_lower,
    samples=(
        sample("f32[3,2]", "i32[4,1]", **ROWS_OF, slice_sizes=(1, 2), ints=_AROUND),
        sample("f32[3,2]", "i32[4,1]", **{**ROWS_OF, "mode": "fill"}, slice_sizes=(1, 1), ints=_AROUND),
        sample("f32[3,2]", "u8[2,1]", **{**ROWS_OF, "mode": "fill"}, slice_sizes=(1, 2), ints=(0, 4)),
        sample("f32[3,4]", "i32[2,2]", **_BLOCKS, slice_sizes=(2, 1), ints=_AROUND),
        sample("f32[2,3]", "i32[2,2,1]", **_EACH_ITS_OWN, slice_sizes=(1, 1), ints=_AROUND),
        sample("i32[3,2]", "i32[4,1]", **ROWS_OF, slice_sizes=(1, 2), ints=_AROUND),
        sample(
            "f32[3,2]",
            "i32[1]",
            **{**ROWS_OF, "offset_dims": (0,), "unique_indices": True},
            slice_sizes=(1, 2),
        ),
        sample("f32[4,2]", "i32[2,1]", **{**ROWS_OF, "mode": "promise_in_bounds"}, slice_sizes=(1, 2)),
    ),
)

row(
    name="gather_filled",
    doc="gather in mode fill with another number than zero, such as NaN, for a window that is not inside.",
    type_rule=_gather_filled_type,
    evaluate=_gather_evaluate,
    derivative=Jvp(_gather_filled_jvp),
    batch=_gather_batch,
    lower=_gather_lower,
    may_be_nan=True,
    samples=(
        sample("f32[3,2]", "i32[4,1]", **_FILLED, slice_sizes=(1, 2), fill_value=2.5, ints=_AROUND),
        sample("i32[3,2]", "i32[4,1]", **_FILLED, slice_sizes=(1, 1), fill_value=-1, ints=_AROUND),
        sample("bool[3,2]", "i32[4,1]", **_FILLED, slice_sizes=(1, 1), fill_value=True, ints=_AROUND),
        sample("f32[3,2]", "i32[4,1]", **_FILLED, slice_sizes=(1, 2), fill_value=float("nan"), ints=(0, 2)),
    ),
)
