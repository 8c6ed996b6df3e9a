"""Folding of structured operations: branches and loops of known course, results that are known outside."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from stategrad.ir import Operation, Region, Value

from .identities import Folding
from .ports import CONTROL, Ports, ports, with_settled
from .splat import CONSTANT, splat


class Taken(NamedTuple):
    """A region that runs exactly once, on `args`; `wrap` makes the operation's results of the region's."""

    region: Region
    args: Sequence[Value]
    wrap: Callable[[list[Value]], list[Value]]


def _chosen_branch(scope: Folding, op: Operation) -> Taken | None:
    index = scope.splat(op.operands[0])
    if index is None and len(op.regions) > 1:
        return None
    chosen = min(max(int(index or 0), 0), len(op.regions) - 1)
    return Taken(op.regions[chosen], op.operands[1:], list)


def _short_scan(scope: Folding, op: Operation) -> Taken | None:
    if op.attributes["length"] > 1 or any(v.type.dtype.numpy is None for v in (*op.operands, *op.results)):
        return None
    return _single_step(scope, op) if op.attributes["length"] else _no_step(scope, op)


def _no_step(scope: Folding, op: Operation) -> Taken:
    carry = op.attributes["carry"]
    done = [*op.operands[:carry], *(scope.zeros(r.type) for r in op.results[carry:])]
    return Taken(Region((), (), ()), (), lambda _: done)


def _single_step(scope: Folding, op: Operation) -> Taken:
    carry, each = op.attributes["carry"], op.attributes["each"]
    args = list(op.operands)
    for i in range(carry, carry + each):
        args[i] = scope.reshape(args[i], shape=args[i].type.shape[1:])

    def stacked(found: list[Value]) -> list[Value]:
        ys = [scope.reshape(y, shape=(1, *y.type.shape)) for y in found[carry:]]
        return [*found[:carry], *ys]

    return Taken(op.regions[0], args, stacked)


REGION_RULES: dict[str, Callable[[Folding, Operation], Taken | None]] = {
    "cond": _chosen_branch,
    "scan": _short_scan,
}
"""What to put in the place of a structured operation, if anything. Its operands are already new."""


# ------------------------------------------------------------------------------------------- known results
def settle_carries(op: Operation) -> tuple[Operation, dict[Value, Value]]:
    """`op` with the carries that never change among its const operands, and what their results are."""
    found = ports(op)
    if found is None or not found.carried:
        return op, {}
    body, slots = op.regions[-1], found.params[-1]
    settled = [i for i in range(found.carried) if body.results[i] is body.params[slots.index(i)]]
    known = {op.results[i]: op.operands[i] for i in settled}
    return (with_settled(op, settled) if settled else op), known


def forward_results(scope: Folding, op: Operation) -> dict[Value, Value]:
    """The results of `op` that are one of its operands, or a constant: what to use in their place."""
    found = ports(op)
    if found is None:
        return {}
    known: dict[Value, Value] = {}
    for i in range(found.carried, len(op.results)):
        if scope.is_used(op.results[i]):
            value = _operand(scope, op, found, i) or _same_constant(scope, op, found, i)
            known.update({op.results[i]: value} if value is not None else {})
    return known


def _yielded(op: Operation, found: Ports, result: int) -> list[tuple[Region, Sequence[int], Value]]:
    """For each region, what it yields as the result."""
    return [
        (region, slots, region.results[targets.index(result)])
        for region, slots, targets in zip(op.regions, found.params, found.results, strict=True)
        if CONTROL not in targets
    ]


def _operand(scope: Folding, op: Operation, found: Ports, result: int) -> Value | None:
    """The operand that every region hands through as the result."""
    slots = {
        slots[region.params.index(value)] if value in region.params else None
        for region, slots, value in _yielded(op, found, result)
    }
    slot = slots.pop()
    if slots or slot is None or slot < found.carried:
        return None
    operand, wanted = op.operands[slot], op.results[result].type
    if operand.type == wanted and (slot in found.sliced or not found.repeats):
        return operand
    if not found.whole(slot):
        return None
    dimensions = tuple(range(1, wanted.rank))
    return scope.broadcast(operand, shape=wanted.shape, dimensions=dimensions)


def _same_constant(scope: Folding, op: Operation, found: Ports, result: int) -> Value | None:
    """The constant that every region yields as the result, if it is full of one number."""
    numbers = [splat(_constant(region, value)) for region, _, value in _yielded(op, found, result)]
    first = numbers[0]
    if any(n is None or n.tobytes() != first.tobytes() for n in numbers):
        return None
    return scope.constant(first, op.results[result].type)


def _constant(region: Region, value: Value) -> Operation | None:
    return next((op for op in region.operations if op.name == CONSTANT and op.result is value), None)
