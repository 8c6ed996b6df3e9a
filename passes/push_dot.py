"""Pushing a basis through a product of arrays: a product with an identity is the other array itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from stategrad.ir import Builder, DType, Operation, Value
from stategrad.ir.ops.axes import others

from .basis import Axis, Sized, Sparse, spread

if TYPE_CHECKING:
    from .push import Push


class _Labels(NamedTuple):
    """What the axes of the two operands run along, by the axes of the result and sums of their own."""

    ours: list[Axis]
    theirs: list[Axis]
    ties: dict[int, int]


def push_dot(push: "Push", op: Operation) -> None:
    """Where a tied axis is summed over, the tie picks one element: nothing is summed. What is tied and stays
    is an axis that both have in common.
    """
    b, attributes = push.b, op.attributes
    side = 0 if push.pushed(op.operands[0]) is not None else 1
    x, other = push.arriving(op)[0], push.fixed(op.operands[1 - side])
    labels = _labels(op, side, x)
    core = Sized(x.core.array, tuple(a if a.kind == "basis" else labels.ours[a.number] for a in x.core.axes))
    pair = [core, _summed(b, Sized(other, tuple(labels.theirs)), core.axes)]
    pair = pair if side == 0 else pair[::-1]
    if any(a.kind == "sum" for a in core.axes):
        made = _contracted(b, pair[0], pair[1], attributes["precision"], attributes["to"])
    else:
        made = _multiplied(b, pair[0], pair[1], attributes["to"])
    push.bind(op.result, Sparse(made, op.result.type, x.basis, labels.ties))


def _labels(op: Operation, side: int, x: Sparse) -> _Labels:
    contract, shared = op.attributes["contract"], op.attributes["batch"]
    ranks = [v.type.rank for v in op.operands]
    free = [others(rank, c, s) for rank, c, s in zip(ranks, contract, shared, strict=True)]
    first = len(shared[0])
    starts = (first, first + len(free[0]))
    ours = [Axis("sum", j) for j in range(ranks[side])]
    theirs = [Axis("sum", 0)] * ranks[1 - side]
    for r, j in (*enumerate(shared[side]), *enumerate(free[side], starts[side])):
        ours[j] = Axis("value", r)
    ties = {ours[j].number: i for j, i in x.ties.items() if ours[j].kind == "value"}
    for r, j in enumerate(free[1 - side], starts[1 - side]):
        theirs[j] = Axis("value", r)
    for pairs in (contract, shared):
        for mine, its in zip(pairs[side], pairs[1 - side], strict=True):
            theirs[its] = x.place(mine) if mine in x.ties else ours[mine]
    return _Labels(ours, theirs, ties)


def _summed(b: Builder, x: Sized, kept: Sequence[Axis]) -> Sized:
    """The array summed over what the other operand is the same for."""
    gone = tuple(k for k, a in enumerate(x.axes) if a.kind == "sum" and a not in kept)
    if not gone:
        return x
    return Sized(b.reduce_sum(x.array, axes=gone), tuple(a for k, a in enumerate(x.axes) if k not in gone))


def _contracted(b: Builder, x: Sized, y: Sized, precision: tuple[str, str], to: DType) -> Sized:
    common = [a for a in x.axes if a in y.axes]
    summed, shared = ([a for a in common if (a.kind == "sum") == flag] for flag in (True, False))
    contract, batch = (
        (tuple(map(x.axes.index, axes)), tuple(map(y.axes.index, axes))) for axes in (summed, shared)
    )
    found = b.dot(x.array, y.array, contract=contract, batch=batch, precision=precision, to=to)
    free = [a for z in (x, y) for a in z.axes if a not in common]
    return Sized(found, (*shared, *free))


def _multiplied(b: Builder, x: Sized, y: Sized, to: DType) -> Sized:
    """The product along the axes of both, element by element."""
    longest = max(x, y, key=lambda z: len(z.axes))
    axes = tuple(dict.fromkeys((*longest.axes, *x.axes, *y.axes)))
    sizes = {a: n for z in (x, y) for a, n in zip(z.axes, z.array.type.shape, strict=True)}
    operands = [
        spread(b, Sized(_converted(b, z.array, to), z.axes), axes, [sizes[a] for a in axes]) for z in (x, y)
    ]
    return Sized(b.mul(*operands), axes)


def _converted(b: Builder, x: Value, to: DType) -> Value:
    return x if x.type.dtype is to else b.convert(x, to=to)
