"""What of a scan must run step by step, what may run before the steps of a block, and what after them."""

from collections import Counter

from stategrad.ir import Operation, Region, Row, Value
from stategrad.ir.record import record

from .residuals_cut import Choice, bytes_of, choose
from .residuals_scan import price, steady_values
from .splat import BARRIER

BLOCK_RATE = 4.0
"""How many floating-point operations keeping a byte within a block of steps is worth: it stays in a cache."""

_ADD = "add"


@record
class Sum:
    """A carried value that the body only adds `terms` to, by the operations `adds`."""

    adds: list[Operation]
    terms: list[Value]


@record
class Parts:
    """A scan taken apart.

    Attributes:
        sums: the carried values that are taken out of the loop, by their place.
        before: the operations that no carried value enters.
        after: the operations that only those sums need.
        steps: the operations that stay in the loop.
        entering: what the loop takes of what is known before it, and which operations of `before` it repeats.
        leaving: what the loop stacks for `after`.
    """

    sums: dict[int, Sum]
    before: list[Operation]
    after: list[Operation]
    steps: list[Operation]
    entering: Choice
    leaving: list[Value]

    @property
    def rows(self) -> int:
        """Over how many rows a product after the loop sums for each step."""
        found = [op.opdef.cost_of(op) // max(2 * op.result.type.size, 1) for op in self.after if _sums_up(op)]
        return max(1, min(found))


def divide(op: Operation) -> Parts | None:
    """The parts of a scan; None if nothing is gained by taking it apart."""
    (body,) = op.regions
    carry, each = op.attributes["carry"], op.attributes["each"]
    sums = _sums(body, carry)
    if not sums or any(v.type.dtype.kind == "k" for v in body.params):
        return None
    division = _Division(body, carry, each, sums)
    while division.sums:
        staying = division.staying()
        if not staying:
            return division.parts() if any(map(_sums_up, division.leaving.again)) else None
        sums = {i: s for i, s in division.sums.items() if i not in staying}
        division = _Division(body, carry, each, sums)
    return None


def _sums_up(op: Operation) -> bool:
    return isinstance(op.opdef, Row) and op.opdef.summed is not None


def _movable(op: Operation) -> bool:
    return isinstance(op.opdef, Row) and price(op) is not None and op.name != BARRIER


def _movable_after(op: Operation) -> bool:
    """What is dear and cannot be summed well is not made for a whole block."""
    return _movable(op) and (_sums_up(op) or getattr(op.opdef, "cost", None) is None)


def _sums(body: Region, carry: int) -> dict[int, Sum]:
    """The carried values that are only added to."""
    used = Counter(v for op in body.operations for v in op.operands)
    used.update(body.results)
    user = {v: op for op in body.operations for v in op.operands}
    found: dict[int, Sum] = {}
    for i in range(carry):
        v, made = body.params[i], Sum([], [])
        while v is not body.results[i] and used[v] == 1 and v in user and user[v].name == _ADD:
            op = user[v]
            made.adds.append(op)
            made.terms.append(op.operands[1 if op.operands[0] is v else 0])
            v = op.result
        if v is body.results[i] and used[v] == 1 and made.adds:
            found[i] = made
    return found


class _Division:
    """One way to divide: with these sums taken out, if that turns out to be good."""

    def __init__(self, body: Region, carry: int, each: int, sums: dict[int, Sum]) -> None:
        self.sums = sums
        self._body, self._carry = body, carry
        self._params = frozenset(body.params)
        self._adds = {op for s in sums.values() for op in s.adds}
        self._before = self._independent()
        self._steady = steady_values(self._before, body.params[carry + each :])
        self._known = {v for op in self._before for v in op.results}.union(body.params[carry:])
        stays = self._needed_in_steps()
        candidates = [
            op
            for op in body.operations
            if op not in stays and op not in self._before and op not in self._adds
        ]
        terms = [v for s in sums.values() for v in s.terms]
        self.leaving = choose(candidates, terms, self._price_after, lambda op: 0.0)

    def _independent(self) -> dict[Operation, None]:
        """What no carried value enters."""
        known = set(self._body.params[self._carry :])
        found: dict[Operation, None] = {}
        for op in self._body.operations:
            if _movable(op) and known.issuperset(op.operands):
                known.update(op.results)
                found[op] = None
        return found

    def _needed_in_steps(self) -> set[Operation]:
        """What other results than the sums need, and what cannot be moved."""
        needed = {v for i, v in enumerate(self._body.results) if i not in self.sums}
        found: set[Operation] = set()
        for op in reversed(self._body.operations):
            if op in self._adds or op in self._before:
                continue
            if not _movable_after(op) or not needed.isdisjoint(op.results):
                found.add(op)
                needed.update(op.operands)
        return found

    def _price_after(self, v: Value) -> float:
        return 0.0 if v in self._known else float(bytes_of(v.type))

    def staying(self) -> set[int]:
        """The sums with a term that is cheaper to add up than to stack what it is made of."""
        priced = {v for v in self.leaving.kept if self._price_after(v) > 0}
        return {i for i, s in self.sums.items() if not priced.isdisjoint(s.terms)}

    def parts(self) -> Parts:
        body, moved = self._body, set(self.leaving.again)
        steps = [
            op
            for op in body.operations
            if op not in moved and op not in self._before and op not in self._adds
        ]
        made = {v for op in steps for v in op.results}.union(body.params[: self._carry])
        yielded = [v for i, v in enumerate(body.results[: self._carry]) if i not in self.sums]
        wanted = [v for v in (*(v for op in steps for v in op.operands), *yielded) if v not in made]
        entering = choose(list(self._before), wanted, self._price_before, price)
        leaving = [v for v in self.leaving.kept if v in made]
        return Parts(self.sums, list(self._before), self.leaving.again, steps, entering, leaving)

    def _price_before(self, v: Value) -> float | None:
        if v in self._params:
            return 0.0
        return None if v in self._steady else BLOCK_RATE * bytes_of(v.type)
