"""Pushing a basis through a loop or a branch, and whatever else is batched as a whole."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from stategrad.ir import Builder, Function, Operation, Region, Value

from .basis import Axis, Shape, Sized, Sparse, arranged, rebased, untied
from .batch import batch_function
from .batch_walk import BatchWalk

if TYPE_CHECKING:
    from .push import Push


def along_basis(given: Iterable[Sparse | None], tied: Iterable[int] = ()) -> list[int]:
    """The axes of the basis, other than tied ones, that one of the cores runs along."""
    return sorted(set().union(*(x.along_basis for x in given if x is not None)).difference(tied))


def stacked(b: Builder, x: Sparse, along: Sequence[int]) -> Value:
    """The core as a value with one leading axis for these axes of the basis, if there are any."""
    basis = [Axis("basis", i) for i in along]
    core = arranged(b, x, [*basis, *map(x.place, range(x.type.rank))])
    return b.reshape(core, shape=(math.prod(map(x.size, basis)), *x.type.shape)) if len(along) > 1 else core


def unstacked(
    b: Builder, array: Value, of: Value, basis: Shape, along: Sequence[int], ties: Mapping[int, int]
) -> Sparse:
    """The opposite of `stacked`, for a result that has become `array`."""
    if len(along) > 1:
        array = b.reshape(array, shape=(*(basis[i] for i in along), *of.type.shape))
    made = Sparse(Sized(array, ()), of.type, basis, ties)
    axes = (*(Axis("basis", i) for i in along), *map(made.place, range(of.type.rank)))
    return Sparse(Sized(array, axes), of.type, basis, ties)


def push_regions(push: "Push", op: Operation) -> None:
    """Batched as a whole along what there is of the basis, all ties written out."""
    b, basis = push.b, push.arriving(op)[0].basis
    given = [x and rebased(b, untied(b, x, x.ties), basis) for x in map(push.pushed, op.operands)]
    along = along_basis(given)
    operands = [stacked(b, x, along) if x else push.fixed(v) for v, x in zip(op.operands, given, strict=True)]
    flags = tuple(x is not None for x in given)
    alone = _alone(op)
    if along:
        nowhere = [False] * len(op.results)
        made = batch_function(alone, flags, math.prod(basis[i] for i in along), results=nowhere)
        depends, body = made.results, made.function.body
    else:
        depends, body = BatchWalk().results(alone.body, flags), alone.body
    for old, new, flag in zip(op.results, _inlined(b, body, operands), depends, strict=True):
        if flag:
            push.bind(old, unstacked(b, new, old, basis, along, {}))
        else:
            push.keep([old], [new])


def _alone(op: Operation) -> Function:
    """A function of one operation."""
    b = Builder(op.location)
    params = [Value(v.type, v.name) for v in op.operands]
    return b.function("alone", params, b.copy(op, params), op.location)


def _inlined(b: Builder, region: Region, args: Sequence[Value]) -> list[Value]:
    """The operations of a region in this place; gives its results."""
    env = dict(zip(region.params, args, strict=True))
    for op in region.operations:
        env.update(zip(op.results, b.copy(op, [env[v] for v in op.operands]), strict=True))
    return [env[v] for v in region.results]
