"""dot: every product of two arrays that sums over pairs of axes."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Linear
from ..dtypes import F32, I32, DType, dtype
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .axes import Ints, accumulator, check_axes, inverse, moved_to_front, others, shifted

if TYPE_CHECKING:
    from ..build import Builder

Pairs = tuple[Ints, Ints]
"""Axes of the left operand, and the axes of the right one that they meet."""

PRECISIONS = ("default", "high", "highest")
_BF16 = dtype("bf16")


def check_precision(precision: tuple[str, str]) -> None:
    """Demands a precision for each of the two operands.

    Raises:
        IRTypeError: it is not a pair of the names in `PRECISIONS`.
    """
    if len(precision) != 2 or any(p not in PRECISIONS for p in precision):
        raise IRTypeError(f"precision = {precision!r} must be two of {', '.join(PRECISIONS)}")


@lru_cache(maxsize=16)
def precision_text(precision: tuple[str, str]) -> str:
    """The precision of the two operands as StableHLO writes it."""
    return f"[{', '.join(f'#stablehlo<precision {p.upper()}>' for p in precision)}]"


def in_result_type(hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
    """Two operands of different element types in that of the result: StableHLO wants them alike."""
    types, to = [v.type for v in op.operands], op.result.type.dtype
    if types[0].dtype is types[1].dtype:
        return operands
    return [hlo.op("convert", [v], [t.with_dtype(to)])[0] for v, t in zip(operands, types, strict=True)]


# ------------------------------------------------------------------------------------------------ meaning
def _dot_type(
    x: Type,
    y: Type,
    *,
    contract: Pairs,
    batch: Pairs = ((), ()),
    precision: tuple[str, str] = ("default", "default"),
    to: DType,
) -> Type:
    check_precision(precision)
    for which, of in enumerate((x, y)):
        check_axes((*contract[which], *batch[which]), of.rank, "contract and batch")
    for name, (left, right) in (("contract", contract), ("batch", batch)):
        if [x.shape[a] for a in left] != [y.shape[a] for a in right]:
            raise IRTypeError(f"{name} = {[list(left), list(right)]} pairs axes of different lengths")
    return Type(to, _dot_shape(x, y, contract, batch))


def _dot_shape(x: Type, y: Type, contract: Pairs, batch: Pairs) -> Ints:
    shared = [x.shape[a] for a in batch[0]]
    left = [x.shape[a] for a in others(x.rank, contract[0], batch[0])]
    right = [y.shape[a] for a in others(y.rank, contract[1], batch[1])]
    return (*shared, *left, *right)


def _dot_evaluate(
    x: Any, y: Any, *, contract: Pairs, batch: Pairs, precision: tuple[str, str], to: DType
) -> Any:
    shape = _dot_shape(Type.of(x), Type.of(y), contract, batch)
    wide = accumulator(to.numpy)
    left = (*batch[0], *others(x.ndim, contract[0], batch[0]), *contract[0])
    right = (*batch[1], *contract[1], *others(y.ndim, contract[1], batch[1]))
    n = int(np.prod([x.shape[a] for a in batch[0]], dtype=int))
    k = int(np.prod([x.shape[a] for a in contract[0]], dtype=int))
    rows, columns = (_size_without(z.shape, c, s) for z, c, s in zip((x, y), contract, batch, strict=True))
    product = np.matmul(
        x.transpose(left).reshape(n, rows, k).astype(wide),
        y.transpose(right).reshape(n, k, columns).astype(wide),
    )
    return product.reshape(shape).astype(to.numpy)


def _size_without(shape: Ints, *without: Ints) -> int:
    return int(np.prod([shape[a] for a in others(len(shape), *without)], dtype=int))


# ------------------------------------------------------------------------------------------------ rules
def _dot_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    """The other operand's own axes are summed away, and what is left is put in place: of the two orders in
    which the factors can stand, in the one that leaves less to move.
    """
    of, other, given = op.operands[index].type, operands[1 - index], op.attributes
    assert other is not None
    plan = _transposed_dot(given["contract"], given["batch"], index, of.rank, other.type.rank)
    x, y, precision = ct, other, given["precision"]
    if plan.ct_last:
        x, y, precision = y, x, precision[::-1]
    product = b.dot(x, y, contract=plan.contract, batch=plan.batch, precision=precision, to=ct.type.dtype)
    found = product if plan.permutation is None else b.transpose(product, permutation=plan.permutation)
    return found if found.type is of else b.convert(found, to=of.dtype)


class _TransposedDot(NamedTuple):
    """A product of a cotangent and the other factor, and how its axes are to be permuted, if they are."""

    ct_last: bool
    contract: Pairs
    batch: Pairs
    permutation: Ints | None


@lru_cache(maxsize=256)
def _transposed_dot(contract: Pairs, batch: Pairs, mine: int, rank: int, its_rank: int) -> _TransposedDot:
    its = 1 - mine
    my_free = others(rank, contract[mine], batch[mine])
    its_free = others(its_rank, contract[its], batch[its])
    shared = tuple(range(len(batch[0])))
    at = len(shared) if mine else len(shared) + len(my_free)
    summed = tuple(range(at, at + len(its_free)))
    partner = dict(zip(contract[its], contract[mine], strict=True))
    partners = tuple([partner[a] for a in sorted(contract[its])])
    ct_last = (*batch[mine], *partners, *my_free) == tuple(range(rank))
    if ct_last:
        return _TransposedDot(True, (its_free, summed), (batch[its], shared), None)
    back = inverse((*batch[mine], *my_free, *partners))
    moves = back != tuple(range(rank))
    return _TransposedDot(False, (summed, its_free), (shared, batch[its]), back if moves else None)


def _dot_batch(b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]) -> Value:
    contract, batch = op.attributes["contract"], op.attributes["batch"]
    contract, batch = (_shift_batched(pairs, batched) for pairs in (contract, batch))
    if all(batched):
        batch = ((0, *batch[0]), (0, *batch[1]))
    found = b.dot(*operands, **{**op.attributes, "contract": contract, "batch": batch})
    shared = len(op.attributes["batch"][0])
    left_free = op.operands[0].type.rank - shared - len(contract[0])
    return moved_to_front(b, found, 0 if all(batched) else shared if batched[0] else shared + left_free)


def _shift_batched(pairs: Pairs, batched: Sequence[bool]) -> Pairs:
    left, right = (shifted(axes) if flag else axes for axes, flag in zip(pairs, batched, strict=True))
    return left, right


@lru_cache(maxsize=256)
def _dimension_numbers(contract: Pairs, batch: Pairs) -> str:
    return (
        f"#stablehlo.dot<lhs_batching_dimensions = {list(batch[0])}, "
        f"rhs_batching_dimensions = {list(batch[1])}, "
        f"lhs_contracting_dimensions = {list(contract[0])}, rhs_contracting_dimensions = {list(contract[1])}>"
    )


def _dot_lower(hlo: Any, op: Operation, x: Any, y: Any) -> Any:
    x, y = in_result_type(hlo, op, (x, y))
    numbers = _dimension_numbers(op.attributes["contract"], op.attributes["batch"])
    config = precision_text(op.attributes["precision"])
    return hlo.op(
        "dot_general", [x, y], [op.result.type], dot_dimension_numbers=numbers, precision_config=config
    )


def _dot_summed(b: "Builder", op: Operation, operands: Sequence[Value]) -> Value:
    """The leading axis is one more to sum over. Where the others lead as well they become one with it, since
    compilers write out the transposes of a product over several axes.
    """
    contract, batch = op.attributes["contract"], op.attributes["batch"]
    if contract == ((0,), (0,)):
        merged = [
            b.reshape(v, shape=(v.type.shape[0] * v.type.shape[1], *v.type.shape[2:])) for v in operands
        ]
        return b.dot(*merged, **op.attributes)
    (left, right), (one, other) = contract, batch
    pairs = {
        "contract": ((0, *shifted(left)), (0, *shifted(right))),
        "batch": (shifted(one), shifted(other)),
    }
    return b.dot(*operands, **{**op.attributes, **pairs})


def _dot_cost(op: Operation) -> int:
    """A multiplication and an addition for each pair of elements that meet."""
    x = op.operands[0].type
    summed = 1
    for axis in op.attributes["contract"][0]:
        summed *= x.shape[axis]
    return 2 * op.result.type.size * summed


_PLAIN = {"batch": ((), ()), "precision": ("default", "default"), "to": F32}

row(
    name="dot",
    doc="Sums of products over pairs of axes. The result has batch axes, the left's own, the right's own.",
    type_rule=_dot_type,
    evaluate=_dot_evaluate,
    derivative=Linear("each", _dot_transpose),
    batch=_dot_batch,
    lower=_dot_lower,
    cost=_dot_cost,
    summed=_dot_summed,
    may_be_nan=True,
    samples=(
        sample("f32[2,3]", "f32[3,2]", contract=((1,), (0,)), **_PLAIN),
        sample("f32[3]", "f32[3]", contract=((0,), (0,)), **_PLAIN),
        sample("f32[2]", "f32[3]", contract=((), ()), **_PLAIN),
        sample("f32[2,3,4]", "f32[4,2,3]", contract=((2, 1), (0, 2)), **_PLAIN),
        sample("f32[3,4,2,1]", "f32[2,2,4]", contract=((1,), (2,)), **{**_PLAIN, "batch": ((2,), (0,))}),
        sample("f32[2,0]", "f32[0,2]", contract=((1,), (0,)), **_PLAIN),
        sample("bf16[2,3]", "bf16[3]", contract=((1,), (0,)), **_PLAIN),
        sample("bf16[2,3]", "bf16[3]", contract=((1,), (0,)), **{**_PLAIN, "to": _BF16}),
        sample("i8[2,3]", "i8[3]", contract=((1,), (0,)), **{**_PLAIN, "to": I32}),
        sample("f32[2,3]", "f32[3]", contract=((1,), (0,)), **{**_PLAIN, "precision": ("highest", "high")}),
    ),
)
