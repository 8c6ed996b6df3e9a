"""Identities: for an operation, the value that its result is known to be, read off its row of this table.

They hold exactly in floating point, NaN and infinities included, but for the sign of a zero: x + 0 counts as
x, as it does in XLA. x * 0 is *not* folded unless x is an integer.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from stategrad.ir import Operation, Region, Value

from .pads import joined
from .rebuild import Scope
from .splat import CONSTANT, splat


class Folding(Scope):
    """A region that is being folded: knows which operation made each value, and which are `constants`."""

    def __init__(self, region: Region) -> None:
        super().__init__(region)
        self.constants: dict[Value, Operation] = {}
        self._makers: dict[Value, Operation] = {}
        self._splats: dict[Operation, Any] = {}
        self._inside = [region]

    @cached_property
    def _used(self) -> set[Value]:
        return {
            v for r in self._inside for v in (*r.results, *(v for op in r.operations for v in op.operands))
        }

    def use(self, region: Region) -> None:
        """Takes note of a region that is put here: of what it uses."""
        self._inside.append(region)
        self.__dict__.pop("_used", None)

    def is_used(self, old: Value) -> bool:
        """Whether anything takes the value as operand or yields it."""
        return old in self._used

    def append(self, op: Operation) -> tuple[Value, ...]:
        results = op.results
        for r in results:
            self._makers[r] = op
        if op.opdef.name == CONSTANT:
            self.constants[results[0]] = op
        self.operations.append(op)
        return results

    def maker(self, value: Value) -> Operation | None:
        """The operation of this region that made what `value` has become; None for a parameter."""
        return self._makers.get(self.value(value))

    def made_by(self, value: Value, name: str) -> Operation | None:
        """The operation that made the value, if it is one of that name."""
        found = self.maker(value)
        return found if found is not None and found.name == name else None

    def splat(self, value: Value) -> Any:
        """The one number that the value is full of, if it is known."""
        made = self.constants.get(self.value(value))
        if made is None:
            return None
        if made not in self._splats:
            self._splats[made] = splat(made)
        return self._splats[made]

    def full(self, value: Value, number: int) -> bool:
        """Whether the value is a constant full of that number."""
        found = self.splat(value)
        return found is not None and bool(found == number)


Rule = Callable[[Folding, Operation], Value | None]


IDENTITIES: dict[str, Rule] = {}
"""They give the value, or None."""
OF_CONSTANTS: dict[str, Rule] = {}
"""The same for operations of which an operand is a constant."""


def _identity(*names: str, table: dict[str, Rule] = IDENTITIES) -> Callable[[Rule], Rule]:
    def keep(rule: Rule) -> Rule:
        table.update(dict.fromkeys(names, rule))
        return rule

    return keep


_identity("add")(joined)


# ------------------------------------------------------------------------------------------------ arithmetic
@_identity("add", table=OF_CONSTANTS)
def _add(scope: Folding, op: Operation) -> Value | None:
    x, y = op.operands
    return y if scope.full(x, 0) else x if scope.full(y, 0) else None


@_identity("sub", table=OF_CONSTANTS)
def _sub(scope: Folding, op: Operation) -> Value | None:
    x, y = op.operands
    return x if scope.full(y, 0) else None


@_identity("mul", table=OF_CONSTANTS)
def _mul(scope: Folding, op: Operation) -> Value | None:
    for x, y in (op.operands, op.operands[::-1]):
        if scope.full(y, 1):
            return x
        if scope.full(y, 0) and y.type.dtype.kind in "iu":
            return y
        if y.type.dtype.kind == "f" and scope.full(y, -1):
            return scope.neg(x)
    return None


@_identity("div", table=OF_CONSTANTS)
def _div(scope: Folding, op: Operation) -> Value | None:
    x, y = op.operands
    return x if scope.full(y, 1) else None


@_identity("neg", "not")
def _twice(scope: Folding, op: Operation) -> Value | None:
    inner = scope.made_by(op.operands[0], op.name)
    return inner.operands[0] if inner else None


@_identity("copy")
def _copy(scope: Folding, op: Operation) -> Value | None:
    return op.operands[0]


@_identity("integer_pow")
def _integer_pow(scope: Folding, op: Operation) -> Value | None:
    return op.operands[0] if op.attributes["y"] == 1 else None


@_identity("convert")
def _convert(scope: Folding, op: Operation) -> Value | None:
    return _if_same_type(op)


@_identity("select")
def _select(scope: Folding, op: Operation) -> Value | None:
    predicate, on_true, on_false = op.operands
    known = scope.splat(predicate)
    if known is not None:
        return on_true if known else on_false
    return on_true if on_true is on_false else None


# ------------------------------------------------------------------------------------------------ shape
@_identity("reshape")
def _reshape(scope: Folding, op: Operation) -> Value | None:
    inner = scope.made_by(op.operands[0], "reshape")
    if inner is not None and inner.operands[0].type == op.result.type:
        return inner.operands[0]
    if inner is not None:
        return scope.reshape(inner.operands[0], **op.attributes)
    return _if_same_type(op) or _of_splat(scope, op)


@_identity("transpose")
def _transpose(scope: Folding, op: Operation) -> Value | None:
    permutation, inner = op.attributes["permutation"], scope.made_by(op.operands[0], "transpose")
    if permutation == tuple(range(len(permutation))):
        return op.operands[0]
    if inner is None:
        return _of_splat(scope, op)
    both = tuple(inner.attributes["permutation"][p] for p in permutation)
    moves = both != tuple(range(len(both)))
    return scope.transpose(inner.operands[0], permutation=both) if moves else inner.operands[0]


@_identity("broadcast")
def _broadcast(scope: Folding, op: Operation) -> Value | None:
    dimensions, inner = op.attributes["dimensions"], scope.made_by(op.operands[0], "broadcast")
    if inner is None:
        return _if_same_type(op) or _of_splat(scope, op)
    both = tuple(dimensions[d] for d in inner.attributes["dimensions"])
    return scope.broadcast(inner.operands[0], shape=op.attributes["shape"], dimensions=both)


@_identity("slice")
def _slice(scope: Folding, op: Operation) -> Value | None:
    return _if_same_type(op) or _of_splat(scope, op)


@_identity("concatenate")
def _concatenate(scope: Folding, op: Operation) -> Value | None:
    # If the first operand has the type of the result, the others are empty.
    return _if_same_type(op)


@_identity("reverse")
def _reverse(scope: Folding, op: Operation) -> Value | None:
    return _of_splat(scope, op) if op.attributes["dimensions"] else op.operands[0]


@_identity("pad")
def _pad(scope: Folding, op: Operation) -> Value | None:
    return None if any(map(any, op.attributes.values())) else op.operands[0]


@_identity("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or")
def _reduced(scope: Folding, op: Operation) -> Value | None:
    (x,), axes = op.operands, op.attributes["axes"]
    if not axes:
        return x
    if all(x.type.shape[a] == 1 for a in axes):
        return scope.reshape(x, shape=op.result.type.shape)
    return scope.zeros(op.result.type) if op.name == "reduce_sum" and scope.full(x, 0) else None


def _if_same_type(op: Operation) -> Value | None:
    return op.operands[0] if op.operands[0].type == op.result.type else None


def _of_splat(scope: Folding, op: Operation) -> Value | None:
    """The result of copying or moving the elements of a constant full of one number: the same number."""
    made = scope.made_by(op.operands[0], CONSTANT)
    if splat(made) is None or made is None:
        return None
    return scope.constant(made.attributes["value"], op.result.type, op.result.name)
