"""How shapes, indexing, reductions and products of lax become rows: one entry per primitive.

An entry gives the values of the results, or NotImplemented where the primitive must stay as it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from stategrad.ir import Builder, Type, Value, dtype, dtype_of

Params = Mapping[str, Any]
Operands = Sequence[Value]
Types = Sequence[Type]
Entry = Callable[[Builder, Params, Operands, Types], Any]

_I32, _I64 = dtype("i32"), dtype("i64")


def _ints(values: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _for_kinds(kinds: str, entry: Entry) -> Entry:
    """The entry for operands of these kinds of element types only (the letters of `DType.kind`)."""

    def guarded(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
        if any(x.type.dtype.kind not in kinds for x in operands):
            return NotImplemented
        return entry(b, params, operands, types)

    return guarded


# ------------------------------------------------------------------------------------------------ shapes
def _reshape(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    order, (x, *shape_operands) = params.get("dimensions"), operands
    if shape_operands or params.get("sharding") is not None:
        return NotImplemented
    if order is not None:
        x = b.transpose(x, permutation=_ints(order))
    return b.reshape(x, shape=types[0].shape)


def _to_result_shape(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    return b.reshape(operands[0], shape=types[0].shape)


def _transpose(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    return b.transpose(operands[0], permutation=_ints(params["permutation"]))


def _broadcast_in_dim(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    if len(operands) > 1 or params.get("sharding") is not None:
        return NotImplemented
    dimensions = _ints(params["broadcast_dimensions"])
    return b.broadcast(operands[0], shape=types[0].shape, dimensions=dimensions)


def _tile(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    (x,) = operands
    shape = [n for pair in zip(_ints(params["reps"]), x.type.shape, strict=True) for n in pair]
    copies = b.broadcast(x, shape=tuple(shape), dimensions=tuple(range(1, len(shape), 2)))
    return b.reshape(copies, shape=types[0].shape)


def _rev(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    return b.reverse(operands[0], dimensions=tuple(sorted(_ints(params["dimensions"]))))


def _concatenate(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    return b.concatenate(*operands, dimension=int(params["dimension"]))


def _stack(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    axis = int(params["axis"])
    shape = list(types[0].shape)
    shape[axis] = 1
    return b.concatenate(*(b.reshape(x, shape=tuple(shape)) for x in operands), dimension=axis)


def _parts(b: Builder, x: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
    """Consecutive parts of these sizes along an axis."""
    found = []
    for a, z in pairwise(accumulate(sizes, initial=0)):
        start, limit = [0] * x.type.rank, list(x.type.shape)
        start[axis], limit[axis] = a, z
        found.append(b.slice(x, start=tuple(start), limit=tuple(limit), strides=(1,) * x.type.rank))
    return found


def _split(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    return _parts(b, operands[0], int(params["axis"]), _ints(params["sizes"]))


def _unstack(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    parts = _parts(b, operands[0], int(params["axis"]), [1] * len(types))
    return [b.reshape(part, shape=to.shape) for part, to in zip(parts, types, strict=True)]


# ------------------------------------------------------------------------------------------------ slices
def _slice(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    strides = params["strides"]
    return b.slice(
        operands[0],
        start=_ints(params["start_indices"]),
        limit=_ints(params["limit_indices"]),
        strides=_ints(strides) if strides is not None else (1,) * types[0].rank,
    )


def _pad(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    low, high, interior = (_ints(c[i] for c in params["padding_config"]) for i in range(3))
    return b.pad(*operands, low=low, high=high, interior=interior)


def _places(b: Builder, places: Operands) -> list[Value]:
    """Scalar indices in one type, wide enough for every axis."""
    wide = any(p.type.dtype.name in ("i64", "u32", "u64") for p in places)
    to = _I64 if wide else _I32
    return [p if p.type.dtype is to else b.convert(p, to=to) for p in places]


def _dynamic_slice(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    x, *places = operands
    sizes = _ints(params["slice_sizes"])
    if len(places) != x.type.rank:
        return NotImplemented
    return b.dynamic_slice(x, *_places(b, places), sizes=sizes)


def _dynamic_update_slice(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    x, update, *places = operands
    return b.dynamic_update_slice(x, update, *_places(b, places))


# -------------------------------------------------------------------------------------------- gather, scatter
_MODES = {"CLIP": "clip", "FILL_OR_DROP": "fill", "PROMISE_IN_BOUNDS": "promise_in_bounds"}


def _promises(params: Params) -> dict[str, bool]:
    return {name: bool(params[name]) for name in ("indices_are_sorted", "unique_indices")}


def _gather(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    numbers, mode = params["dimension_numbers"], _MODES.get(params["mode"].name)
    if mode is None:
        return NotImplemented
    attributes = {
        "offset_dims": _ints(numbers.offset_dims),
        "collapsed_dims": _ints(numbers.collapsed_slice_dims),
        "index_map": _ints(numbers.start_index_map),
        "operand_batch_dims": _ints(numbers.operand_batching_dims),
        "indices_batch_dims": _ints(numbers.start_indices_batching_dims),
        "slice_sizes": _ints(params["slice_sizes"]),
        **_promises(params),
    }
    fill = params["fill_value"]
    if mode == "fill" and (fill != 0 or any(np.asarray(fill).tobytes())):  # -0.0 is no plain zero
        return b.gather_filled(*operands, **attributes, fill_value=_python_number(fill))
    return b.gather(*operands, **attributes, mode=mode)


def _python_number(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _scatter_attributes(params: Params) -> dict[str, Any] | None:
    numbers, mode = params["dimension_numbers"], _MODES.get(params["mode"].name)
    if mode is None:
        return None
    return {
        "offset_dims": _ints(numbers.update_window_dims),
        "collapsed_dims": _ints(numbers.inserted_window_dims),
        "index_map": _ints(numbers.scatter_dims_to_operand_dims),
        "operand_batch_dims": _ints(numbers.operand_batching_dims),
        "indices_batch_dims": _ints(numbers.scatter_indices_batching_dims),
        "mode": mode,
        **_promises(params),
    }


def _scatter(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    attributes = _scatter_attributes(params)
    if attributes is None or params["update_jaxpr"] is not None:
        return NotImplemented
    return b.scatter(*operands, **attributes)


def _scatter_add(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    attributes = _scatter_attributes(params)
    return NotImplemented if attributes is None else b.scatter_add(*operands, **attributes)


def _scatter_sub(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    x, indices, updates = operands
    return _scatter_add(b, params, (x, indices, b.neg(updates)), types)


# ------------------------------------------------------------------------------------------------ reductions
def _reduction(name: str) -> Entry:
    def entry(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
        if params.get("out_sharding") is not None:
            return NotImplemented
        return b.call_row(name, operands[0], axes=tuple(sorted(_ints(params["axes"]))))

    return entry


def _place(name: str) -> Entry:
    def entry(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
        (axis,) = _ints(params["axes"])
        return b.call_row(name, operands[0], axis=axis, to=dtype_of(params["index_dtype"]))

    return entry


def _running(name: str) -> Entry:
    def entry(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
        return b.call_row(name, operands[0], axis=int(params["axis"]), reverse=bool(params["reverse"]))

    return entry


def _sort(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    """The row is always stable: that is one of the orders that an unstable sort may give."""
    keys = int(params["num_keys"])
    if any(x.type.dtype.kind not in "biuf" for x in operands[:keys]):
        return NotImplemented
    return b.sort(*operands, dimension=int(params["dimension"]), num_keys=keys)


# ------------------------------------------------------------------------------------------------ products
def _precision(params: Params) -> tuple[str, str] | None:
    """The names for both operands, or None for an algorithm, which only JAX knows how to lower."""
    given = params["precision"]
    if given is None:
        return "default", "default"
    if not isinstance(given, tuple):
        return None
    left, right = given
    return left.name.lower(), right.name.lower()


def _dot_general(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    precision = _precision(params)
    if precision is None or params.get("out_sharding") is not None:
        return NotImplemented
    contract, batch = (tuple(_ints(axes) for axes in pairs) for pairs in params["dimension_numbers"])
    return b.dot(*operands, contract=contract, batch=batch, precision=precision, to=types[0].dtype)


def _conv_general_dilated(b: Builder, params: Params, operands: Operands, types: Types) -> Any:
    precision, numbers = _precision(params), params["dimension_numbers"]
    if precision is None or params.get("out_sharding") is not None:
        return NotImplemented
    return b.conv(
        *operands,
        strides=_ints(params["window_strides"]),
        padding=tuple(_ints(pair) for pair in params["padding"]),
        lhs_dilation=_ints(params["lhs_dilation"]),
        rhs_dilation=_ints(params["rhs_dilation"]),
        lhs_spec=_ints(numbers.lhs_spec),
        rhs_spec=_ints(numbers.rhs_spec),
        out_spec=_ints(numbers.out_spec),
        feature_groups=int(params["feature_group_count"]),
        batch_groups=int(params["batch_group_count"]),
        precision=precision,
        to=types[0].dtype,
    )


# ------------------------------------------------------------------------------------------------ the table
_NUMBERS = "biufc"

TABLE: dict[str, Entry] = {
    "reshape": _reshape,
    "squeeze": _to_result_shape,
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast_in_dim,
    "tile": _for_kinds(_NUMBERS, _tile),
    "rev": _for_kinds(_NUMBERS, _rev),
    "concatenate": _for_kinds(_NUMBERS, _concatenate),
    "stack": _for_kinds(_NUMBERS, _stack),
    "unstack": _unstack,
    "split": _split,
    "slice": _slice,
    "pad": _for_kinds(_NUMBERS, _pad),
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _for_kinds(_NUMBERS, _dynamic_update_slice),
    "gather": _for_kinds(_NUMBERS, _gather),
    "scatter": _for_kinds(_NUMBERS, _scatter),
    "scatter-add": _for_kinds("iufc", _scatter_add),
    "scatter-sub": _for_kinds("iufc", _scatter_sub),
    "reduce_sum": _for_kinds("iufc", _reduction("reduce_sum")),
    "reduce_prod": _for_kinds("iufc", _reduction("reduce_prod")),
    "reduce_max": _for_kinds("biuf", _reduction("reduce_max")),
    "reduce_min": _for_kinds("biuf", _reduction("reduce_min")),
    "reduce_and": _reduction("reduce_and"),
    "reduce_or": _reduction("reduce_or"),
    "argmax": _place("argmax"),
    "argmin": _place("argmin"),
    "cumsum": _running("cumsum"),
    "cumprod": _running("cumprod"),
    "sort": _for_kinds(_NUMBERS, _sort),
    "dot_general": _for_kinds(_NUMBERS, _dot_general),
    "conv_general_dilated": _for_kinds("iuf", _conv_general_dilated),
}
