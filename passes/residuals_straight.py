"""Residuals outside of loops: what is made early in a program and used late, kept or computed again.

A program is followed by its pullback, and most values wait for that. The program is divided where the most
bytes wait the longest. A value that is wanted behind that place is computed again there, right before its
first use, from values that are kept. An `after` keeps that from being merged with the first computation, and
from being done before it is time for it.

To compute everything again at once would save nothing, so the early part may be cut into segments: what
passes from one to the next is kept, and each is computed again when the late part gets there.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise

from stategrad.ir import Builder, Operation, Region, Value
from stategrad.ir.record import record

from .rebuild import with_body, with_parts
from .residuals_cut import Choice, bytes_of, choose
from .residuals_scan import SCAN, price
from .splat import CONSTANT

_AFTER = "after"
_HALVINGS = 7
"""How often the size of a segment is halved at most."""
_NEAR = 0.02
"""So small a part of what is kept now is not worth any arithmetic."""
_PATIENCE = 2
"""So many sizes in a row that save nothing, and no smaller ones are tried."""


@record
class Plan:
    """A choice, the operations of the late part after it, and what both come to.

    Attributes:
        bytes: the memory of early values, and of those computed again, where it is most in the late part.
        cost: the operations that are computed again.
    """

    operations: list[Operation]
    bytes: int
    cost: float


def keep_less(region: Region, budget: int | float, rates: Sequence[float]) -> Region:
    """The region with some of its early values computed again; the same object if that saves nothing.

    Args:
        budget: bytes, or as a float a part of what is kept now. If no plan stays within it, the one that
            comes nearest is taken. A region where something was chosen before stays as it is.
        rates: what a byte may be worth, in floating-point operations.
    """
    whole = isinstance(budget, float) and budget >= 1
    if whole or any(op.name == _AFTER for op in region.operations):
        return region
    halves = Halves(region)
    now = halves.plan(Choice([], []))
    limit = budget * now.bytes if isinstance(budget, float) else budget
    plan = _chosen(now, halves.plans(rates), limit)
    return region if plan is now else with_body(region, [*halves.early, *plan.operations])


def _chosen(now: Plan, levels: Iterable[list[Plan]], limit: float) -> Plan:
    """The cheapest plan of the first level that has one within the limit, or else the least, about."""
    if now.bytes <= limit:
        return now
    seen, least, idle = [now], now.bytes, 0
    for plans in levels:
        within = [plan for plan in plans if plan.bytes <= limit]
        if within:
            return min(within, key=lambda plan: (plan.cost, plan.bytes))
        seen += plans
        found = min(plan.bytes for plan in seen)
        least, idle = found, 0 if found < least else idle + 1
        if idle == _PATIENCE:
            break
    near = [plan for plan in seen if plan.bytes <= least + now.bytes * _NEAR]
    return min(near, key=lambda plan: (plan.cost, plan.bytes))


class Halves:
    """A region divided where the most bytes wait the longest."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._place = {op: i for i, op in enumerate(region.operations)}
        self._makers = {v: op for op in region.operations for v in op.results}
        self._uses: dict[Value, list[int]] = {}
        for i, op in enumerate(region.operations):
            for v in dict.fromkeys(op.operands):
                self._uses.setdefault(v, []).append(i)
        results = set(region.results)
        self._free = {v for v, op in self._makers.items() if v in results or op.name == CONSTANT}
        self._middle = self._most_waiting()
        self.early = region.operations[: self._middle]
        self._late = region.operations[self._middle :]

    def _most_waiting(self) -> int:
        """The place of the operation before which the most bytes have waited, and will, for the longest."""
        change = [0] * (len(self._region.operations) + 2)
        for v in self._makers:
            if v in self._free or v not in self._uses:
                continue
            moments = (self._place[self._makers[v]], *self._uses[v])
            length, start = max((z - a, a) for a, z in pairwise(moments))
            change[start + 1] += length * bytes_of(v.type)
            change[start + length + 1] -= length * bytes_of(v.type)
        most, place, level = 0, 0, 0
        for i, step in enumerate(change):
            level += step
            if level > most:
                most, place = level, i
        return place

    @cached_property
    def _wanted(self) -> list[Value]:
        """The early values that the late part uses."""
        last = {v: found[-1] for v, found in self._uses.items()}
        return [v for op in self.early for v in op.results if last.get(v, -1) >= self._middle]

    # ------------------------------------------------------------------------------------------------- plans
    def plans(self, rates: Sequence[float]) -> Iterator[list[Plan]]:
        """What may be done, one plan for each rate, with smaller and smaller segments."""
        known: set[frozenset[Operation]] = {frozenset()}
        for cuts in self._segmentations():
            kept = self._crossing(cuts)
            found: list[Plan] = []
            for rate in rates:
                choice = self._choose(rate, kept)
                repeated = frozenset(choice.again)
                if repeated not in known:
                    known.add(repeated)
                    found.append(self.plan(choice))
            yield found

    def _choose(self, rate: float, kept: set[Value]) -> Choice:
        free = self._free.union(self._region.params, kept)
        return choose(
            self.early,
            self._wanted,
            lambda v: 0.0 if v in free else rate * bytes_of(v.type),
            lambda op: None if op.name == SCAN else price(op),
        )

    def _segmentations(self) -> Iterator[list[int]]:
        """Places where the early part is cut."""
        wanted = set(self._wanted)
        sizes = [sum(bytes_of(v.type) for v in op.results if v in wanted) for op in self.early]
        yield []
        limit, before = sum(sizes), []
        for _ in range(_HALVINGS):
            limit //= 2
            cuts = self._cuts(sizes, limit)
            if cuts != before:
                yield cuts
            before = cuts

    def _cuts(self, sizes: Sequence[int], limit: int) -> list[int]:
        """Cuts into segments of about so many bytes each, where few bytes pass from one to the next."""
        cuts: list[int] = []
        since, best = 0, None
        for i, size in enumerate(sizes, 1):
            since += size
            if 2 * since >= limit and (best is None or self._passing[i] <= self._passing[best]):
                best = i
            if since >= limit and best is not None:
                cuts.append(best)
                since, best = sum(sizes[best:i]), None
        return [i for i in cuts if i < len(sizes)]

    @cached_property
    def _passing(self) -> list[int]:
        """How many bytes pass each place of the early part."""
        change = [0] * (len(self.early) + 1)
        for v, start, end in self._spans():
            change[start + 1] += bytes_of(v.type)
            change[end + 1] -= bytes_of(v.type)
        for i in range(len(self.early)):
            change[i + 1] += change[i]
        return change

    def _spans(self) -> Iterator[tuple[Value, int, int]]:
        """The early values, each with its place and that of its last use in the early part."""
        for i, op in enumerate(self.early):
            for v in op.results:
                end = max((j for j in self._uses.get(v, ()) if j < self._middle), default=i)
                if v not in self._free:
                    yield v, i, end

    def _crossing(self, cuts: Sequence[int]) -> set[Value]:
        """What is kept anyway: what passes a cut; and the last segment, which is at hand."""
        if not cuts:
            return set()
        found = {v for v, start, end in self._spans() if any(start < cut <= end for cut in cuts)}
        return found.union(v for op in self.early[cuts[-1] :] for v in op.results)

    # ----------------------------------------------------------------------------------------------- a plan
    def plan(self, choice: Choice) -> Plan:
        """The late part after a choice."""
        operations = _Late(self.early, self._makers, choice).rebuilt(self._late)
        cost = sum(price(op) or 0.0 for op in choice.again)
        return Plan(operations, self._most_bytes(operations), cost)

    def _most_bytes(self, operations: Sequence[Operation]) -> int:
        """The memory of early values and of what is computed again, where it is most."""
        late = {v for op in self._late for v in op.results}
        last = {v: op for op in operations for v in op.operands if v not in late}
        level = sum(bytes_of(v.type) for v in last if v in self._makers and v not in self._free)
        most = level
        for op in operations:
            level += sum(bytes_of(v.type) for v in op.results if v not in late)
            most = max(most, level)
            gone = {v for v in op.operands if last.get(v) is op and v not in self._free}
            level -= sum(bytes_of(v.type) for v in gone.difference(self._region.params))
        return most


class _Late:
    """The late part in the making: before an operation comes what it needs and what is computed again."""

    def __init__(self, early: Sequence[Operation], makers: dict[Value, Operation], choice: Choice) -> None:
        self._makers = makers
        kept = set(choice.kept)
        self._again = {v: op for op in choice.again for v in op.results if v not in kept}
        self._place = {op: i for i, op in enumerate(choice.again)}
        self._now: dict[Value, Value] = {}
        self._made: set[Operation] = set()
        self._b = Builder()
        self._done: Value | None = None
        for op in early:
            self._note(op)

    def _note(self, op: Operation) -> None:
        """Remembers what can be waited for."""
        for v in op.results:
            if can_be_awaited(v) and op.name != CONSTANT:
                self._done = v

    def rebuilt(self, late: Iterable[Operation]) -> list[Operation]:
        made: set[Value] = set()
        for op in late:
            lacking = [v for v in op.operands if v in self._again and v not in self._now]
            if lacking:
                done = next((v for v in op.operands if v in made and can_be_awaited(v)), self._done)
                self._b.at("residuals", op.location)
                self._make(lacking, done)
            self._b.operations.append(with_parts(op, [self._now.get(v, v) for v in op.operands]))
            made.update(op.results)
            self._note(op)
        return self._b.operations

    def _make(self, wanted: Iterable[Value], done: Value | None) -> None:
        """Computes again what is wanted, once `done` is there."""
        needed: set[Operation] = set()
        waiting = list(wanted)
        while waiting:
            op = self._again.get(waiting.pop())
            if op is not None and op not in needed and op not in self._made:
                needed.add(op)
                waiting += op.operands
        fresh: dict[Value, Value] = {}
        for op in sorted(needed, key=self._place.__getitem__):
            if done is not None:
                self._hold(op, done, fresh)
            operands = [self._now.get(v) or fresh.get(v, v) for v in op.operands]
            results = zip(op.results, self._b.copy(op, operands), strict=True)
            self._now.update((v, new) for v, new in results if v in self._again)
        self._made |= needed

    def _hold(self, op: Operation, done: Value, fresh: dict[Value, Value]) -> None:
        """Lets an operation wait for `done`, unless it does already."""
        given = [v for v in op.operands if v not in self._makers or self._makers[v].name != CONSTANT]
        held = held_operand(given, {*self._now, *fresh})
        if held is not None:
            fresh[held] = self._b.after(held, done)


def held_operand(operands: Iterable[Value], waiting: Container[Value]) -> Value | None:
    """The operand by which an operation is made to wait, the smallest; None if one of them waits already."""
    operands = list(operands)
    if any(v in waiting for v in operands):
        return None
    return min(operands, key=lambda v: (v.type.dtype.kind == "k", bytes_of(v.type)), default=None)


def can_be_awaited(v: Value) -> bool:
    """Whether the operation `after` takes it as what is waited for."""
    return v.type.dtype.kind == "f" and v.type.size > 0
