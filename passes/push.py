"""Pushes a basis through a linear program: all its elements at once, as sparse as they are known to be.

Each operation is linear in what depends on the basis. So it may act on a core instead of on every element,
wherever it treats the tied axes element by element; the other ties are written out before it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stategrad.ir import Builder, Function, Linear, Operation, Region, Row, StructuredOp, Value
from stategrad.ir.ops.axes import reshaped
from stategrad.ir.ops.common import batch as elementwise

from .basis import Axis, Shape, Sized, Sparse, arranged, one_hot, rebased, spread, untied
from .batch import BatchWalk, batch_function
from .names import Fresh
from .splat import CONSTANT, is_zero, splat

ZERO = None
"""Stands for the basis pushed to where nothing of it arrives."""

AxisMap = Mapping[int, int]
"""For axes of an operand along which an operation treats each element alone: the axis of its result."""


class Push:
    """A pure function, linear in all parameters but the first `known` ones, in the place of a builder. What
    does not depend on a basis is computed once for all of them.
    """

    def __init__(self, b: Builder, function: Function, known: Sequence[Value]) -> None:
        self.b = b
        self._function = function
        self._fixed = dict(zip(function.params, known, strict=False))
        self._makers: dict[Value, Operation] = {}
        self._linear = function.params[len(known) :]
        self._copied: set[Operation] = set()
        self._pushed: dict[Value, Sparse | None] = {}

    def basis(self, index: int) -> list[Sparse | Value | None]:
        """The results for the standard basis of one linear parameter, the others being zero. A result that
        the basis did not reach is None, or a value that turns out to be zero.
        """
        self._pushed = dict.fromkeys(self._linear, ZERO)
        start = self._linear[index]
        self._pushed[start] = one_hot(self.b, start.type)
        for op in self._function.body.operations:
            self.b.location = op.location
            self._step(op)
        return [self._pushed[v] if v in self._pushed else self._fixed[v] for v in self._function.results]

    def _step(self, op: Operation) -> None:
        if not any(v in self._pushed for v in op.operands):
            self._copy(op)
        elif isinstance(op.opdef, StructuredOp):
            _structured(self, op)
        elif not self.sparse(op):
            self._pushed.update(dict.fromkeys(op.results, ZERO))
        else:
            rule = RULES.get(op.name)
            if rule is None:
                rule = _elementwise if _is_elementwise(op) else _along
            rule(self, op)

    def _copy(self, op: Operation) -> None:
        if op not in self._copied:
            self._copied.add(op)
            self.keep(op, self.b.copy(op, [self._fixed[v] for v in op.operands]))

    # ------------------------------------------------------------------------------------------ for rules
    def sparse(self, op: Operation) -> list[Sparse]:
        """What of the basis arrives at an operation."""
        return [x for x in map(self._pushed.get, op.operands) if x is not ZERO]

    def pushed(self, value: Value) -> Sparse | None:
        """What of the basis arrives at a value."""
        return self._pushed.get(value)

    def fixed(self, value: Value) -> Value:
        """A value that does not depend on the basis, zero among those."""
        return self.b.zeros(value.type) if value in self._pushed else self._fixed[value]

    def keep(self, op: Operation, values: Sequence[Value]) -> None:
        """Says what the results of an operation are that do not depend on the basis."""
        for old, new in zip(op.results, values, strict=True):
            new.name = new.name or old.name
            self._fixed[old] = new
            self._makers[old] = op

    def bind(self, value: Value, found: Sparse | None) -> None:
        """Says what arrives at a value."""
        self._pushed[value] = found

    def is_zero(self, value: Value) -> bool:
        """Whether a value is zero for the whole basis."""
        return self.pushed(value) is ZERO if value in self._pushed else is_zero(self._makers.get(value))

    def splat(self, value: Value) -> Value | None:
        """A scalar that the value is full of, for the whole basis; None if there is none."""
        scalar = value.type.with_shape(())
        if value in self._pushed:
            return self.b.zeros(scalar)
        made = self._makers.get(value)
        if made is None or splat(made) is None:
            return None
        return self.b.constant(made.attributes["value"], scalar)


Rule = Callable[[Push, Operation], None]
RULES: dict[str, Rule] = {}
"""Operations that act on a core otherwise than on a value; filled by importing `push_rules`."""


# ------------------------------------------------------------------------------------------------ elementwise
def _is_elementwise(op: Operation) -> bool:
    return isinstance(op.opdef, Row) and op.opdef.batch is elementwise and len(op.results) == 1


def _elementwise(push: Push, op: Operation) -> None:
    """The operation on cores: along the axes that any of the operands runs along."""
    b, to = push.b, op.result.type
    same = {j: j for j in range(to.rank)}
    given = _aligned(push, op, [same] * len(op.operands))
    first = next(x for x in given if x is not None)
    operands: list[Sized] = []
    for value, x in zip(op.operands, given, strict=True):
        scalar = None if x is not None else push.splat(value)
        if x is not None:
            operands.append(x.core)
        elif scalar is not None:
            operands.append(Sized(scalar, ()))
        else:
            operands.append(Sized(push.fixed(value), tuple(map(first.place, range(to.rank)))))
    longest = max(operands, key=lambda x: len(x.axes))
    axes = tuple(dict.fromkeys(a for x in (longest, *operands) for a in x.axes))
    sizes = [first.size(a) for a in axes]
    (core,) = b.emit(op.opdef, [spread(b, x, axes, sizes) for x in operands], op.attributes)
    push.bind(op.result, Sparse(Sized(core, axes), to, first.basis, first.ties))


def _aligned(push: Push, op: Operation, maps: Sequence[AxisMap]) -> list[Sparse | None]:
    """What arrives at the operands, along one shape of the basis and with ties only where all have them and
    the operation allows it.
    """
    first = push.sparse(op)[0]
    given = [push.pushed(v) for v in op.operands]
    given = [x if x is None else rebased(push.b, x, first.basis) for x in given]
    agreed: set[tuple[int, int]] | None = None
    if not _adds_fixed(push, op):
        for x, map in zip(given, maps, strict=True):
            if x is not None:
                mine = {(map[j], i) for j, i in x.ties.items() if j in map}
                agreed = mine if agreed is None else agreed & mine
    ties = agreed or set()
    return [
        x and untied(push.b, x, [j for j, i in x.ties.items() if (map.get(j), i) not in ties])
        for x, map in zip(given, maps, strict=True)
    ]


def _adds_fixed(push: Push, op: Operation) -> bool:
    """Whether something that does not depend on the basis, and may be other than zero, is added to the
    results.
    """
    derivative = op.opdef.derivative if isinstance(op.opdef, Row) else None
    if not isinstance(derivative, Linear) or derivative.over == "each":
        return False
    return any(
        v.type.differentiable and push.pushed(v) is ZERO and not push.is_zero(v) for v in op.operands
    )


# ------------------------------------------------------------------------------------------------ any row
def _along(push: Push, op: Operation) -> None:
    """The batching rule of the operation along what the cores have of the basis; ties stay where it treats
    each element alone.
    """
    b, maps = push.b, _maps(op)
    given = _aligned(push, op, maps)
    first, first_map = next((x, m) for x, m in zip(given, maps, strict=True) if x is not None)
    ties = {first_map[j]: i for j, i in first.ties.items()}
    along = sorted(set().union(*(x.along_basis for x in given if x is not None)) - set(ties.values()))
    operands, flags = [], []
    for value, x in zip(op.operands, given, strict=True):
        flags.append(x is not None and bool(along))
        operands.append(push.fixed(value) if x is None else _stacked(b, x, along))
    if along:
        results = op.opdef.batch_of(b, op, operands, flags)
    else:
        results = b.emit(op.opdef, operands, op.attributes)
    for old, new in zip(op.results, results, strict=True):
        axes = (*(Axis("basis", i) for i in along), *(_place(ties, r) for r in range(old.type.rank)))
        core = reshaped(b, new, (*(first.basis[i] for i in along), *old.type.shape))
        push.bind(old, Sparse(Sized(core, axes), old.type, first.basis, ties))


def _stacked(b: Builder, x: Sparse, along: Sequence[int]) -> Value:
    """The core as a value with one leading axis for these axes of the basis, if there are any."""
    value = [x.place(j) for j in range(x.type.rank)]
    core = arranged(b, x, [*(Axis("basis", i) for i in along), *value])
    return reshaped(b, core, (-1, *x.type.shape)) if len(along) > 1 else core


def _place(ties: Mapping[int, int], axis: int) -> Axis:
    return Axis("basis", ties[axis]) if axis in ties else Axis("value", axis)


def _maps(op: Operation) -> list[AxisMap]:
    """For each operand, the axes along which the operation treats each element alone."""
    rule = ALONE.get(op.name)
    nowhere: AxisMap = {}
    if rule is None:
        return [nowhere] * len(op.operands)
    alone = {j: j for j in range(op.operands[0].type.rank) if rule(op, j)}
    return [alone if v.type.rank == op.operands[0].type.rank else nowhere for v in op.operands]


def _untouched(op: Operation, axis: int) -> bool:
    return all(a[axis] == 0 for a in op.attributes.values())


ALONE: dict[str, Callable[[Operation, int], bool]] = {
    "reverse": lambda op, axis: axis not in op.attributes["dimensions"],
    "cumsum": lambda op, axis: axis != op.attributes["axis"],
    "concatenate": lambda op, axis: axis != op.attributes["dimension"],
    "slice": lambda op, axis: op.operands[0].type.shape[axis] == op.result.type.shape[axis],
    "dynamic_slice": lambda op, axis: op.operands[0].type.shape[axis] == op.result.type.shape[axis],
    "dynamic_update_slice": lambda op, axis: (
        op.operands[0].type.shape[axis] == op.operands[1].type.shape[axis]
    ),
    "pad": _untouched,
}
"""Operations that treat each element alone along some axes, which they leave in place in all operands of the
same rank.
"""


# ------------------------------------------------------------------------------------------------ regions
def _structured(push: Push, op: Operation) -> None:
    """Batched as a whole, along what there is of the basis."""
    b = push.b
    found = push.sparse(op)
    if not found:
        push.keep(op, b.copy(op, [push.fixed(v) for v in op.operands]))
        return
    basis = found[0].basis
    given = [push.pushed(v) for v in op.operands]
    given = [x if x is None else rebased(b, untied(b, x, x.ties), basis) for x in given]
    along = sorted(set().union(*(x.along_basis for x in given if x is not None)))
    flags = tuple(x is not None for x in given)
    operands = [
        push.fixed(v) if x is None else _stacked(b, x, along) for v, x in zip(op.operands, given, strict=True)
    ]
    size = 1
    for i in along:
        size *= basis[i]
    wide, results = _batched(op, flags, size)
    new = _inline(b, wide, operands)
    _bind_batched(push, op, new, results, basis, along)
