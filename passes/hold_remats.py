"""Remats that wait: what a remat computes again is not merged with the first time, nor done before its time.

A derivative runs the region of a `remat` again, with cotangents besides its operands. A barrier around it is
not enough where compilers drop barriers before they merge equal operations, as XLA does for CPUs.
"""

from collections.abc import Sequence

from stategrad.ir import Function, Operation, Region, Value
from stategrad.ir.record import record

from .pipeline import register_pass
from .rebuild import RewritePass, Rewriter, Scope, with_parts
from .residuals_straight import can_be_awaited, held_operand
from .splat import CONSTANT

REMAT = "remat"


@register_pass
@record
class HoldRemats(RewritePass):
    """Lets what a remat computes again wait for what it is given that an earlier remat was not.

    A remat computes again what an earlier one does if it has operands of that, and all its others were made
    since.
    """

    name = "hold-remats"

    def rewriter(self) -> Rewriter:
        return _HoldRemats()


def hold_remats_function(function: Function) -> Function:
    """`function` and what it calls, with remats that wait; the same object if there are none."""
    return _HoldRemats().function(function)


class _HoldRemats(Rewriter):
    def region(self, region: Region) -> Region:
        if region.straight:
            return region
        scope = Scope(region)
        place = {v: i for i, op in enumerate(region.operations) for v in op.results}
        earlier: list[tuple[int, set[Value]]] = []
        for i, op in enumerate(region.operations):
            new = self.renew(scope, op, [self.region(r) for r in op.regions])
            if op.name == REMAT:
                new = _held(new, _fresh(op, earlier, place))
                earlier.append((i, set(op.operands)))
            scope.append(new)
        return scope.finish()


def _fresh(
    op: Operation, earlier: Sequence[tuple[int, set[Value]]], place: dict[Value, int]
) -> list[int] | None:
    """Which operands of a remat are new to it, if it computes again what an earlier one does."""
    for since, given in reversed(earlier):
        fresh = [i for i, v in enumerate(op.operands) if v not in given]
        known = len(op.operands) - len(fresh)
        if known and all(place.get(op.operands[i], -1) > since for i in fresh):
            return fresh
    return None


def _held(op: Operation, fresh: list[int] | None) -> Operation:
    """The remat with a region in which what depends on no fresh operand waits for one."""
    (body,) = op.regions
    awaited = [body.params[i] for i in fresh or () if can_be_awaited(body.params[i])]
    if not awaited:
        return op
    scope = Scope(body)
    known = {p for i, p in enumerate(body.params) if i not in set(fresh or ())}
    waits: set[Value] = set()
    for inner in body.operations:
        new = scope.moved(inner)
        if known.issuperset(inner.operands):
            known.update(inner.results)
            held = None if inner.name == CONSTANT else held_operand(new.operands, waits)
            if held is not None:
                after = scope.at("hold-remats", inner.location).after(held, awaited[-1])
                new = with_parts(new, [after if v is held else v for v in new.operands])
            if inner.operands:
                waits.update(inner.results)
        scope.append(new)
    return with_parts(op, regions=[scope.finish()])
