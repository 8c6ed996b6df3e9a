"""Many windows of one array at once: the numbers that describe gather and scatter alike.

`indices` is a table of places, one along its last axis; component i is a place on axis `index_map[i]` of the
operand. For each place there is a window. Axes `offset_dims` of the windows array (gather's result, scatter's
updates) run inside a window, its other axes over the table. Axes `collapsed_dims` of the operand have no axis
in the window; axes `operand_batch_dims` go along with the axes `indices_batch_dims` of the table.
`mode` says what happens with a window that does not lie inside: "clip" moves it, "fill" leaves it out (gather
gives zeros for it), "promise_in_bounds" says there is none.
"""

from typing import Any, NamedTuple

import numpy as np

from ..core import Operation, Type
from ..dtypes import I32, dtype
from ..errors import IRTypeError
from .axes import Ints, check_axes, others, shifted

I64 = dtype("i64")
MODES = ("clip", "fill", "promise_in_bounds")


class Numbers(NamedTuple):
    """Which axis goes where; see the module's text."""

    offset_dims: Ints
    collapsed_dims: Ints
    index_map: Ints
    operand_batch_dims: Ints
    indices_batch_dims: Ints

    @staticmethod
    def of(op: Operation) -> "Numbers":
        return Numbers(*(op.attributes[name] for name in Numbers._fields))

    def check(self, x: Type, indices: Type, mode: str) -> None:
        """Demands that they fit the operand and the table.

        Raises:
            IRTypeError: they do not.
        """
        if indices.dtype.kind not in "iu" or not indices.rank:
            raise IRTypeError(f"the indices must be integers with at least one axis, not {indices}")
        if mode not in MODES:
            raise IRTypeError(f"mode = {mode!r} must be one of {', '.join(MODES)}")
        check_axes((*self.collapsed_dims, *self.operand_batch_dims), x.rank, "collapsed and batch axes")
        check_axes((*self.index_map, *self.operand_batch_dims), x.rank, "index_map and batch axes")
        check_axes(self.indices_batch_dims, indices.rank - 1, "indices_batch_dims")
        check_axes(self.offset_dims, len(self.offset_dims) + indices.rank - 1, "offset_dims", increasing=True)
        if len(self.offset_dims) != len(self.window_axes(x.rank)) or len(self.index_map) != indices.shape[-1]:
            raise IRTypeError(f"{self} do not fit {x} and {indices}")
        mine = [x.shape[a] for a in self.operand_batch_dims]
        if mine != [indices.shape[a] for a in self.indices_batch_dims]:
            raise IRTypeError(f"the batch axes of {x} and {indices} have different lengths")

    def window_axes(self, rank: int) -> Ints:
        """The axes of the operand that a window has too."""
        return others(rank, self.collapsed_dims, self.operand_batch_dims)

    def with_operand_axis(self) -> "Numbers":
        """Operand and windows have a new leading axis, which every window covers."""
        offset, collapsed, index_map, mine, its = self
        return Numbers((0, *shifted(offset)), shifted(collapsed), shifted(index_map), shifted(mine), its)

    def with_indices_axis(self) -> "Numbers":
        """The table has a new leading axis, and so have the windows."""
        return self._replace(
            offset_dims=shifted(self.offset_dims), indices_batch_dims=shifted(self.indices_batch_dims)
        )

    def with_shared_axis(self) -> "Numbers":
        """Operand, table and windows have a new leading axis, along which they go together."""
        offset, collapsed, index_map, mine, its = map(shifted, self)
        return Numbers(offset, collapsed, index_map, (0, *mine), (0, *its))


def windows_shape(numbers: Numbers, rank: int, sizes: Ints, table: Ints) -> Ints:
    """The shape of the windows array, for windows of these sizes and a table of this shape."""
    inner = iter(sizes[a] for a in numbers.window_axes(rank))
    outer = iter(table)
    total = len(numbers.offset_dims) + len(table)
    return tuple(next(inner) if d in numbers.offset_dims else next(outer) for d in range(total))


def elements(
    numbers: Numbers, shape: Ints, sizes: Ints, indices: Any, clip: bool
) -> tuple[tuple[Any, ...], Any]:
    """For each element of the windows array its place in the operand, and whether its window is inside."""
    rank = len(numbers.offset_dims) + indices.ndim - 1
    table_axes = others(rank, numbers.offset_dims)
    room = np.array([shape[a] - sizes[a] for a in numbers.index_map], np.int64)
    starts = indices.astype(np.int64)
    inside = np.all((starts >= 0) & (starts <= room), axis=-1)
    starts = np.clip(starts, 0, room) if clip else starts

    def along(values: Any, axes: Ints) -> Any:
        return np.expand_dims(values, others(rank, axes))

    places: list[Any] = [np.zeros((1,) * rank, np.int64) for _ in shape]
    for i, a in enumerate(numbers.index_map):
        places[a] = places[a] + along(starts[..., i], table_axes)
    for a, w in zip(numbers.window_axes(len(shape)), numbers.offset_dims, strict=True):
        places[a] = places[a] + along(np.arange(sizes[a]), (w,))
    for a, t in zip(numbers.operand_batch_dims, numbers.indices_batch_dims, strict=True):
        places[a] = places[a] + along(np.arange(shape[a]), (table_axes[t],))
    return tuple(places), along(inside, table_axes)


# ------------------------------------------------------------------------------------------------ lowering
_WIDE = {"i32": I32, "i64": I64, "u32": I64, "u64": I64}


def wide_indices(hlo: Any, of: Type, indices: Any) -> tuple[Type, Any]:
    """The indices in a type that holds every place, so that bounds can be compared with them."""
    wide = of.with_dtype(_WIDE.get(of.dtype.name, I32))
    return wide, indices if wide == of else hlo.op("convert", [indices], [wide])[0]


def room(numbers: Numbers, shape: Ints, sizes: Ints, of: Type) -> np.ndarray:
    """The last place at which a window lies inside, for each component of the indices of that type."""
    last = [shape[a] - sizes[a] for a in numbers.index_map]
    return np.broadcast_to(np.array(last, of.dtype.numpy), of.shape)


def numbers_text(kind: str, index_vector_dim: int, **axes: Ints) -> str:
    """A StableHLO attribute of axes; empty lists are left out."""
    shown = "".join(f"{name} = {list(found)}, " for name, found in axes.items() if found)
    return f"#stablehlo.{kind}<{shown}index_vector_dim = {index_vector_dim}>"
