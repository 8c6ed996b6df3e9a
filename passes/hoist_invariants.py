"""Invariant computations: what every step of a scan computes alike is computed once, before it.

Without this, a derivative would keep one copy of such a value for every step.
"""

from collections.abc import Iterable

from stategrad.ir import Function, Operation, Region, Value
from stategrad.ir.record import record

from .pipeline import register_pass
from .ports import ports, with_consts
from .rebuild import RewritePass, Rewriter, Scope, with_body, with_parts
from .splat import BARRIER


@register_pass
@record
class HoistInvariants(RewritePass):
    """Moves pure operations on what a scan never changes to before the scan; results become const operands.

    Operations that only make something larger stay inside: what they are made of is cheaper to keep.
    """

    name = "hoist-invariants"

    def rewriter(self) -> Rewriter:
        return _HoistInvariants()


def hoist_invariants_function(function: Function) -> Function:
    """`function` and its callees, invariant operations before their scans; the same object if none are."""
    return _HoistInvariants().function(function)


class _HoistInvariants(Rewriter):
    def region(self, region: Region) -> Region:
        if region.straight:
            return region
        scope = Scope(region)
        for op in region.operations:
            new = self.renew(scope, op, [self.region(r) for r in op.regions])
            # A loop that may run no step at all must not compute what only its steps would.
            runs = new.attributes.get("length", 0) > 0 and bool(new.regions)
            scope.append(_Loop(scope, new).hoisted() if runs else new)
        return scope.finish()


class _Loop:
    """One scan, whose body is taken apart into what moves and what stays."""

    def __init__(self, scope: Scope, op: Operation) -> None:
        self._scope, self._op = scope, op
        (self._body,) = op.regions
        self._outside: dict[Value, Value] = {}
        self._copied: dict[Value, Operation] = {}
        found = ports(op)
        if found is not None:
            slots = zip(self._body.params, found.params[0], strict=True)
            self._outside.update((p, op.operands[slot]) for p, slot in slots if found.whole(slot))

    def hoisted(self) -> Operation:
        """The scan without what was moved to before it; itself if that is nothing."""
        kept: list[Operation] = []
        moved: list[Value] = []
        for op in self._body.operations:
            if not self._is_invariant(op):
                kept.append(op)
            elif _only_enlarges(op):
                self._copied.update(dict.fromkeys(op.results, op))
                kept.append(op)
            else:
                moved += self._move(op)
        return self._with(kept, moved) if moved else self._op

    def _is_invariant(self, op: Operation) -> bool:
        if op.effects or op.external or op.name == BARRIER:
            return False
        return all(v in self._outside or v in self._copied for v in op.operands)

    def _move(self, op: Operation) -> tuple[Value, ...]:
        self._scope.append(with_parts(op, [self._outer(v) for v in op.operands]))
        self._outside.update(zip(op.results, op.results, strict=True))
        return op.results

    def _outer(self, value: Value) -> Value:
        """The value outside the loop; what makes it is copied there where it stays inside too."""
        if value not in self._outside:
            op = self._copied[value]
            results = self._scope.copy(op, [self._outer(v) for v in op.operands])
            self._outside.update(zip(op.results, results, strict=True))
        return self._outside[value]

    def _with(self, kept: list[Operation], moved: Iterable[Value]) -> Operation:
        used = {v for op in kept for v in op.operands}.union(self._body.results)
        params = {v: Value(v.type, v.name) for v in moved if v in used}
        inner = Scope(self._body)
        inner.replace(params, params.values())
        for op in kept:
            inner.append(inner.moved(op))
        body = inner.finish()
        body = with_body(body, body.operations, params=(*body.params, *params.values()))
        return with_consts(self._op, self._op.operands, [body], [list(params)])


def _only_enlarges(op: Operation) -> bool:
    given = sum(v.type.size for v in op.operands)
    return not op.operands or any(r.type.size > given for r in op.results)
