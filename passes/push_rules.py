"""How operations act on what of a basis arrives at them: on cores wherever that is the same."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from stategrad.ir import Linear, Operation, Row, StructuredOp, Value
from stategrad.ir.ops.axes import inverse, others, reshaped
from stategrad.ir.ops.common import batch as elementwise

from .basis import Axis, Sized, Sparse, rebased, spread, untied, with_shape
from .push_dot import push_dot
from .push_regions import along_basis, push_regions, stacked, unstacked

if TYPE_CHECKING:
    from .push import Push

Rule = Callable[["Push", Operation], None]
AxisMap = Mapping[int, int]
"""For axes of an operand along which an operation treats each element alone: the axis of its result."""


def rule_of(op: Operation) -> Rule:
    """How an operation is pushed through."""
    if isinstance(op.opdef, StructuredOp):
        return push_regions
    plain = isinstance(op.opdef, Row) and op.opdef.batch is elementwise and len(op.results) == 1
    return _RULES.get(op.name, _elementwise if plain else _along)


def adds_fixed(push: "Push", op: Operation) -> bool:
    """Whether something that is the same for the whole basis, and may be other than zero, is added to the
    results.
    """
    derivative = op.opdef.derivative if isinstance(op.opdef, Row) else None
    if not isinstance(derivative, Linear) or derivative.over == "each":
        return False
    fixed = (v for v in op.operands if v.type.differentiable and push.pushed(v) is None)
    return not all(map(push.is_zero, fixed))


# ------------------------------------------------------------------------------------------------ elementwise
def _elementwise(push: "Push", op: Operation) -> None:
    """The operation on cores: along those axes that one of the operands runs along."""
    b, to = push.b, op.result.type
    given = _aligned(push, op, [{j: j for j in range(to.rank)}] * len(op.operands))
    first = next(x for x in given if x is not None)
    operands = [x.core if x else _fixed(push, v, first) for v, x in zip(op.operands, given, strict=True)]
    longest = max(operands, key=lambda x: len(x.axes))
    axes = tuple(dict.fromkeys(a for x in (longest, *operands) for a in x.axes))
    sizes = list(map(first.size, axes))
    (core,) = b.emit(op.opdef, [spread(b, x, axes, sizes) for x in operands], op.attributes)
    push.bind(op.result, Sparse(Sized(core, axes), to, first.basis, first.ties))


def _fixed(push: "Push", value: Value, like: Sparse) -> Sized:
    """A value that is the same for the whole basis, with the axes of a core."""
    scalar = push.scalar(value)
    if scalar is not None:
        return Sized(scalar, ())
    return Sized(push.fixed(value), tuple(map(like.place, range(value.type.rank))))


def _aligned(push: "Push", op: Operation, maps: Sequence[AxisMap]) -> list[Sparse | None]:
    """What arrives at the operands, along one shape of the basis, and with those ties that all of them have
    and the operation allows.
    """
    b, basis = push.b, push.arriving(op)[0].basis
    given = [x and rebased(b, x, basis) for x in map(push.pushed, op.operands)]
    ties = [
        {(to[j], i) for j, i in x.ties.items() if j in to} for x, to in zip(given, maps, strict=True) if x
    ]
    agreed = set() if adds_fixed(push, op) else set.intersection(*ties)
    return [
        x and untied(b, x, [j for j, i in x.ties.items() if (to.get(j), i) not in agreed])
        for x, to in zip(given, maps, strict=True)
    ]


# ------------------------------------------------------------------------------------------------ any row
def _along(push: "Push", op: Operation) -> None:
    """The batching rule of the operation, along what the cores have of the basis; ties stay where it treats
    each element alone.
    """
    b, maps = push.b, _maps(op)
    given = _aligned(push, op, maps)
    ties = next({to[j]: i for j, i in x.ties.items()} for x, to in zip(given, maps, strict=True) if x)
    along = along_basis(given, ties.values())
    operands = [stacked(b, x, along) if x else push.fixed(v) for v, x in zip(op.operands, given, strict=True)]
    if along:
        results = op.opdef.batch_of(b, op, operands, [x is not None for x in given])
    else:
        results = b.emit(op.opdef, operands, op.attributes)
    basis = push.arriving(op)[0].basis
    for old, new in zip(op.results, results, strict=True):
        push.bind(old, unstacked(b, new, old, basis, along, ties))


def _maps(op: Operation) -> list[AxisMap]:
    rule, rank = _ALONE.get(op.name), op.operands[0].type.rank
    alone = {j: j for j in range(rank) if rule and rule(op, j)}
    return [alone if v.type.rank == rank else {} for v in op.operands]


def _keeps_length(op: Operation, axis: int) -> bool:
    return op.operands[0].type.shape[axis] == op.result.type.shape[axis]


_ALONE: dict[str, Callable[[Operation, int], bool]] = {
    "reverse": lambda op, axis: axis not in op.attributes["dimensions"],
    "cumsum": lambda op, axis: axis != op.attributes["axis"],
    "concatenate": lambda op, axis: axis != op.attributes["dimension"],
    "pad": lambda op, axis: not any(given[axis] for given in op.attributes.values()),
    "slice": _keeps_length,
    "dynamic_slice": _keeps_length,
    "dynamic_update_slice": lambda op, axis: (
        op.operands[0].type.shape[axis] == op.operands[1].type.shape[axis]
    ),
}
"""Whether an operation treats each element alone along an axis, which it leaves in its place."""


# ------------------------------------------------------------------------------------------------ shape
def _relabelled(x: Sparse, op: Operation, moved: Mapping[int, int]) -> Sparse:
    """The same core for the result of an operation, if axis j of the operand has become axis `moved[j]`."""
    axes = tuple(a if a.kind == "basis" else Axis("value", moved[a.number]) for a in x.core.axes)
    ties = {moved[j]: i for j, i in x.ties.items()}
    return Sparse(Sized(x.core.array, axes), op.result.type, x.basis, ties)


def _transpose(push: "Push", op: Operation) -> None:
    (x,) = push.arriving(op)
    push.bind(op.result, _relabelled(x, op, dict(enumerate(inverse(op.attributes["permutation"])))))


def _broadcast(push: "Push", op: Operation) -> None:
    """Copies need not be made; an axis of length 1 that becomes longer is dropped first."""
    (x,) = push.arriving(op)
    shape, to = x.type.shape, op.attributes["shape"]
    moved = {j: d for j, d in enumerate(op.attributes["dimensions"]) if shape[j] == to[d]}
    grown = [a for a in x.core.axes if a.kind == "value" and a.number not in moved]
    axes = tuple(a for a in x.core.axes if a not in grown)
    core = Sized(reshaped(push.b, x.core.array, tuple(map(x.size, axes))), axes)
    push.bind(op.result, _relabelled(Sparse(core, x.type, x.basis, x.ties), op, moved))


def _reshape(push: "Push", op: Operation) -> None:
    (x,) = push.arriving(op)
    push.bind(op.result, with_shape(push.b, x, op.attributes["shape"]))


def _reduce_sum(push: "Push", op: Operation) -> None:
    """A tie picks one element; what the core does not run along counts as often as the axis is long."""
    b, axes = push.b, op.attributes["axes"]
    (x,) = push.arriving(op)
    summed = [k for k, a in enumerate(x.core.axes) if a.kind == "value" and a.number in axes]
    core, times = x.core.array, 1
    for j in axes:
        if j not in x.ties and Axis("value", j) not in x.core.axes:
            times *= x.type.shape[j]
    if summed:
        core = b.reduce_sum(core, axes=tuple(summed))
    if times != 1:
        core = b.mul(core, b.constant(times, core.type))
    left = Sized(core, tuple(a for k, a in enumerate(x.core.axes) if k not in summed))
    moved = {j: r for r, j in enumerate(others(x.type.rank, axes))}
    ties = {j: i for j, i in x.ties.items() if j in moved}
    push.bind(op.result, _relabelled(Sparse(left, x.type, x.basis, ties), op, moved))


_RULES: dict[str, Rule] = {
    "broadcast": _broadcast,
    "dot": push_dot,
    "reduce_sum": _reduce_sum,
    "reshape": _reshape,
    "transpose": _transpose,
}
