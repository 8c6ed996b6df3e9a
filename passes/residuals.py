"""Residuals: which values of a forward part the backward part keeps, and which it computes again."""

from bisect import bisect_left
from dataclasses import replace

from stategrad.ir import Function, Module, Operation, Region
from stategrad.ir.record import record

from .pipeline import register_pass
from .rebuild import RewritePass, Rewriter, Scope, with_body, with_functions
from .residuals_scan import SCAN, ScanPair, pairs_of, shared_stacks, uses_of
from .residuals_straight import keep_less

RATE = 96.0
"""How many floating-point operations keeping one byte is worth. Writing it, reading it and clearing the stack
before takes as long as about 24; a byte that is not there at all counts for four times that.
"""

_LADDER = tuple(RATE / 4 * 4.0**k for k in range(10))
"""The rates that are tried for a budget: from what time alone is worth to beyond what any operation costs."""

_STRAIGHT = (_LADDER[0], _LADDER[2], _LADDER[-1])
"""Those that are tried outside of loops, where segments of many sizes are tried too."""


@register_pass
@record
class Residuals(RewritePass):
    """Chooses what a backward part, as a loop, takes of what the forward part made, and what it makes again.

    The choice is a minimum cut, with memory on the one side and arithmetic on the other. What every step of a
    loop computes alike is never stacked, and no effect is moved or repeated. Outside of loops nothing is
    computed again without a budget.
    """

    name = "residuals"

    budget: int | float | None = None
    """What may be kept: so many bytes, or as a float the part of what is kept now; 0 is the least possible.
    By default a value of a loop is computed again where that is cheap for the memory it saves."""

    def rewriter(self) -> Rewriter:
        return _Residuals(self.budget)

    def run(self, module: Module) -> Module:
        found = super().run(module)
        called = {callee for f in found.functions.values() for callee in f.body.callees}
        chosen = {
            name: f if f in called else _outside_loops(f, self.budget) for name, f in found.functions.items()
        }
        return with_functions(found, chosen)


def residuals_function(function: Function, budget: int | float | None = None) -> Function:
    """`function` and what it calls, residuals chosen; the same object if nothing is to be chosen."""
    return _outside_loops(_Residuals(budget).function(function), budget)


def _outside_loops(function: Function, budget: int | float | None) -> Function:
    """`function` with the choice made for what is outside of its loops."""
    if budget is None:
        return function
    body = keep_less(function.body, budget, _STRAIGHT)
    return function if body is function.body else replace(function, body=body)


class _Residuals(Rewriter):
    def __init__(self, budget: int | float | None) -> None:
        super().__init__()
        self._budget = budget

    def region(self, region: Region) -> Region:
        """The pairs of this region first: what a backward loop computes again may hold pairs of its own."""
        region = _Pairs(region, self._budget).rebuilt() if _has_scans(region) else region
        scope = Scope(region)
        operations = [self.renew(scope, op, [self.region(r) for r in op.regions]) for op in region.operations]
        return with_body(region, operations)


def _has_scans(region: Region) -> bool:
    return sum([op.name == SCAN for op in region.operations]) > 1


class _Pairs:
    """The pairs of one region, and what is chosen for all of them together."""

    def __init__(self, region: Region, budget: int | float | None) -> None:
        self._region = region
        uses = uses_of(region)
        self._pairs = [
            ScanPair(first, second, shared_stacks(first, second, uses)) for first, second in pairs_of(region)
        ]
        self._rate = RATE if budget is None else self._rate_within(budget)

    def rebuilt(self) -> Region:
        now: dict[Operation, Operation] = {}
        for pair in self._pairs:
            found = ScanPair(now.get(pair.first, pair.first), now.get(pair.second, pair.second), pair.shared)
            choice = found.choose(self._rate)
            if found.carried(choice) or set(choice.kept) != set(found.present.kept):
                now[pair.first], now[pair.second] = found.rebuilt(choice)
        return with_body(self._region, [now.get(op, op) for op in self._region.operations])

    def _rate_within(self, budget: int | float) -> float:
        """The lowest rate at which the stacks fit; the highest if they never do."""
        if isinstance(budget, float):
            budget *= sum(pair.kept_bytes(pair.present) for pair in self._pairs)
        return _LADDER[min(bisect_left(_LADDER, -budget, key=self._bytes_given), len(_LADDER) - 1)]

    def _bytes_given(self, rate: float) -> float:
        return -sum(pair.kept_bytes(pair.choose(rate)) for pair in self._pairs)
