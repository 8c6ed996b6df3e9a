"""The place of the largest and the smallest element, and sorting."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Zero
from ..dtypes import BOOL, I32, DType, dtype
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import all_batched, check_axes, others
from .common import widened
from .reductions import largest, smallest

if TYPE_CHECKING:
    from ..build import Builder

_I8 = dtype("i8")


def _compare(hlo: Any, direction: str, of: DType, pair: Sequence[Any], total: bool = False) -> Any:
    how = "TOTALORDER" if total and of.kind == "f" else {"f": "FLOAT", "i": "SIGNED"}.get(of.kind, "UNSIGNED")
    return hlo.op(
        "compare",
        pair,
        [Type(BOOL)],
        comparison_direction=f"#stablehlo<comparison_direction {direction}>",
        compare_type=f"#stablehlo<comparison_type {how}>",
    )[0]


def _logic(hlo: Any, name: str, *pair: Any) -> Any:
    return hlo.op(name, pair, [Type(BOOL)])[0]


# --------------------------------------------------------------------------------------------- argmax, argmin
def _place_type(x: Type, *, axis: int, to: DType) -> Type:
    check_axes((axis,), x.rank, "axis")
    if x.dtype.kind not in "biuf" or to.kind not in "iu" or not x.shape[axis]:
        raise IRTypeError(f"there is no place of an extreme element in {x} as {to}")
    return Type(to, tuple(x.shape[a] for a in others(x.rank, (axis,))))


def _place_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    return b.emit(op.opdef, operands, {**op.attributes, "axis": op.attributes["axis"] + 1})[0]


def _place_lower(direction: str, start: Any) -> Any:
    def lower(hlo: Any, op: Operation, x: Any) -> Any:
        of, to, axis = op.operands[0].type, op.result.type, op.attributes["axis"]
        element, place = Type(of.dtype), Type(to.dtype)
        (places,) = hlo.op("iota", [], [of.with_dtype(to.dtype)], iota_dimension=axis)
        first = [hlo.constant(start(of.dtype), element), hlo.constant(0, place)]

        def better(args: Sequence[Any]) -> list[Any]:
            return _better(hlo, direction, element, place, args)

        region = hlo.region([element, place, element, place], better)
        types = [to.with_dtype(of.dtype), to]
        return hlo.op("reduce", [x, places, *first], types, regions=[region], dimensions=(axis,))[1]

    return lower


def _better(hlo: Any, direction: str, element: Type, place: Type, args: Sequence[Any]) -> list[Any]:
    """The more extreme of two elements with its place; NaN beats all, the first of equals wins."""
    x, i, y, j = args
    wins = _compare(hlo, direction, element.dtype, (x, y))
    if element.dtype.kind == "f":
        wins = _logic(hlo, "or", wins, _compare(hlo, "NE", element.dtype, (x, x)))
    equal = _compare(hlo, "EQ", element.dtype, (x, y))
    first = _logic(hlo, "and", equal, _compare(hlo, "LT", place.dtype, (i, j)))
    picked = _logic(hlo, "or", wins, first)
    return [hlo.op("select", [wins, x, y], [element])[0], hlo.op("select", [picked, i, j], [place])[0]]


def _place_row(name: str, doc: str, function: Any, direction: str, start: Any) -> None:
    def evaluate(x: Any, *, axis: int, to: DType) -> Any:
        return np.asarray(function(widened(x), axis=axis)).astype(to.numpy)

    row(
        name=name,
        doc=doc,
        type_rule=_place_type,
        evaluate=evaluate,
        derivative=Zero("its results are places"),
        batch=_place_batch,
        lower=_place_lower(direction, start),
        samples=(
            sample("f32[2,3]", axis=1, to=I32),
            sample("i32[5]", axis=0, to=I32),
            sample("bool[3]", axis=0, to=_I8),
            sample("bf16[3,2]", axis=0, to=I32),
            sample("u8[0,3]", axis=1, to=I32),
        ),
    )


_place_row("argmax", "The first place of the largest element along an axis.", np.argmax, "GT", smallest)
_place_row("argmin", "The first place of the smallest element along an axis.", np.argmin, "LT", largest)


# ------------------------------------------------------------------------------------------------ sort
def _sort_type(first: Type, *rest: Type, dimension: int, num_keys: int = 1) -> tuple[Type, ...]:
    check_axes((dimension,), first.rank, "dimension")
    operands = (first, *rest)
    if any(x.shape != first.shape for x in rest) or not 1 <= num_keys <= len(operands):
        raise IRTypeError(
            "all operands need the same shape, and the first num_keys of them are keys, one at least"
        )
    if any(x.dtype.kind not in "biuf" for x in operands[:num_keys]):
        raise IRTypeError("the keys must have an order")
    return operands


def _sort_evaluate(*operands: Any, dimension: int, num_keys: int) -> Any:
    # lexsort takes the most significant key last; adding zero makes -0.0 and 0.0 one key.
    keys = [x if x.dtype.kind == "b" else widened(x) + 0 for x in reversed(operands[:num_keys])]
    order = np.lexsort(keys, axis=dimension)
    return tuple(np.take_along_axis(x, order, dimension) for x in operands)


def _sort_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
) -> tuple[Value | None, ...]:
    dimension, keys = op.attributes["dimension"], op.attributes["num_keys"]
    places = b.iota(type=operands[0].type.with_dtype(I32), dimension=dimension)
    *_, order = b.sort(*operands[:keys], places, dimension=dimension, num_keys=keys)
    return tuple(None if t is None else along(b, t, order, dimension) for t in tangents)


def along(b: "Builder", x: Value, order: Value, dimension: int) -> Value:
    """The elements of `x` in another order along one axis, which `order` gives for each line anew."""
    rank = x.type.rank
    rest = others(rank, (dimension,))
    return b.gather(
        x,
        b.reshape(order, shape=(*order.type.shape, 1)),
        offset_dims=(),
        collapsed_dims=(dimension,),
        index_map=(dimension,),
        operand_batch_dims=rest,
        indices_batch_dims=rest,
        slice_sizes=tuple(min(n, 1) for n in x.type.shape),
        mode="promise_in_bounds",
        indices_are_sorted=False,
        unique_indices=True,
    )


def _sort_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Any:
    attributes = {**op.attributes, "dimension": op.attributes["dimension"] + 1}
    return b.emit(op.opdef, all_batched(b, operands, batched), attributes)


def _sort_lower(hlo: Any, op: Operation, *operands: Any) -> Any:
    types = [v.type for v in op.operands]
    scalars = [Type(x.dtype) for x in types for _ in range(2)]
    region = hlo.region(scalars, lambda args: [_before(hlo, op, args)])
    return hlo.op(
        "sort", operands, types, regions=[region], dimension=op.attributes["dimension"], is_stable=True
    )


def _before(hlo: Any, op: Operation, args: Sequence[Any]) -> Any:
    """Whether the first of two places comes before the second: the first key that differs decides."""
    found = None
    for k in reversed(range(op.attributes["num_keys"])):
        of = op.operands[k].type.dtype
        pair = [_as_key(hlo, of, x) for x in args[2 * k : 2 * k + 2]]
        less = _compare(hlo, "LT", of, pair, total=True)
        if found is not None:
            same = _compare(hlo, "EQ", of, pair, total=True)
            less = _logic(hlo, "or", less, _logic(hlo, "and", same, found))
        found = less
    return found


def _as_key(hlo: Any, of: DType, x: Any) -> Any:
    """A float with one zero and one NaN: then the total order of bits is the order of numbers, NaN last."""
    if of.kind != "f":
        return x
    scalar = Type(of)
    zero, nan = hlo.constant(0, scalar), hlo.constant(np.nan, scalar)
    (x0,) = hlo.op("select", [_compare(hlo, "EQ", of, (x, zero)), zero, x], [scalar])
    return hlo.op("select", [_compare(hlo, "NE", of, (x, x)), nan, x0], [scalar])[0]


def _sort_cost(op: Operation) -> int:
    """Comparisons in proportion to n log n."""
    length = op.operands[0].type.shape[op.attributes["dimension"]]
    return 4 * length.bit_length() * sum([v.type.size for v in op.operands])


row(
    name="sort",
    doc="All operands in an order in which the first num_keys ascend along an axis; equals keep their order.",
    type_rule=_sort_type,
    evaluate=_sort_evaluate,
    derivative=Jvp(_sort_jvp),
    batch=_sort_batch,
    lower=_sort_lower,
    cost=_sort_cost,
    samples=(
        sample("f32[2,4]", dimension=1, num_keys=1),
        sample("i32[4,2]", "f32[4,2]", dimension=0, num_keys=1),
        sample("bool[5]", "f32[5]", "i32[5]", dimension=0, num_keys=2),
        sample("u8[5]", "f32[5]", "i32[5]", dimension=0, num_keys=1),
        sample("f32[0,2]", dimension=0, num_keys=1),
    ),
)
