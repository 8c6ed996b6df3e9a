"""Residuals of loops: a scan stacks a value of each step, and a later scan takes them apart again.

The later loop may get a value in two ways. It takes the slices of a stack; or it computes the value again
from what it can have for less: the slices that the first loop was given, what both close over, other stacks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stategrad.ir import Builder, Operation, Region, Value

from .rebuild import with_parts
from .residuals_cut import Choice, bytes_of, choose

SCAN = "scan"

Uses = Mapping[Value, set[Operation | None]]
"""The operations of a region that use a value; None stands for the results of the region."""


def uses_of(region: Region) -> Uses:
    """Who uses each value of a region."""
    found: dict[Value, set[Operation | None]] = {}
    for op in region.operations:
        for v in op.operands:
            found.setdefault(v, set()).add(op)
    for v in region.results:
        found.setdefault(v, set()).add(None)
    return found


def pairs_of(region: Region) -> list[tuple[Operation, Operation]]:
    """The pairs of scans of which the second takes apart, step by step, what the first has stacked."""
    stacked: dict[Value, Operation] = {}
    found: dict[tuple[Operation, Operation], None] = {}
    for op in region.operations:
        if op.name != SCAN:
            continue
        carry, each = op.attributes["carry"], op.attributes["each"]
        for v in op.operands[carry : carry + each]:
            first = stacked.get(v)
            if first is not None and first.attributes["length"] == op.attributes["length"]:
                found[first, op] = None
        stacked.update(dict.fromkeys(op.results[carry:], op))
    return list(found)


@dataclass(frozen=True)
class ScanPair:
    """Two scans over the same steps. `shared` are the stacks of the first that more than the second uses."""

    first: Operation
    second: Operation
    shared: frozenset[Value]

    @property
    def body(self) -> Region:
        return self.first.regions[0]

    @property
    def links(self) -> dict[Value, Value]:
        """Which value of the first body each parameter of the second one holds."""
        carry, each = (self.second.attributes[key] for key in ("carry", "each"))
        stacked = dict(zip(self.first.results, self.body.results, strict=True))
        for v in self.first.results[: self.first.attributes["carry"]]:
            del stacked[v]
        slots = range(carry, carry + each)
        params, operands = self.second.regions[0].params, self.second.operands
        return {params[i]: stacked[operands[i]] for i in slots if operands[i] in stacked}

    @property
    def given(self) -> dict[Value, Value]:
        """The parameters of the first body that the second loop can have too, and where from."""
        carry = self.first.attributes["carry"]
        return dict(zip(self.body.params[carry:], self.first.operands[carry:], strict=True))

    def choose(self, rate: float) -> Choice:
        """What to keep and what to compute again, where keeping a byte for a step costs `rate`."""
        free = set(self.given).union(self._kept_anyway())
        end = self.first.attributes["carry"] + self.first.attributes["each"]
        invariant = steady_values(self.body.operations, self.body.params[end:])

        def keep(v: Value) -> float | None:
            return None if v in invariant else 0.0 if v in free else rate * bytes_of(v.type)

        return choose(self.body.operations, self.links.values(), keep, price)

    def kept_bytes(self, choice: Choice) -> int:
        """The memory of the stacks that are there for the second loop alone."""
        free = set(self.given).union(self._kept_anyway())
        return self.first.attributes["length"] * sum(bytes_of(v.type) for v in choice.kept if v not in free)

    @property
    def present(self) -> Choice:
        """The choice that the program has made."""
        return Choice(list(dict.fromkeys(self.links.values())), [])

    def _kept_anyway(self) -> Iterable[Value]:
        results = zip(self.first.results, self.body.results, strict=True)
        return [inner for stack, inner in results if stack in self.shared]

    # ------------------------------------------------------------------------------------------- rebuilding
    def rebuilt(self, choice: Choice) -> tuple[Operation, Operation]:
        """The two scans after a choice. Results of the first that nobody uses any more stay."""
        given, links = self.given, self.links
        new = [v for v in choice.kept if v not in given and v not in self._stacks()]
        first = self._with_stacks(new)
        stacks = ScanPair(first, self.second, self.shared)._stacks()
        each_end = self.first.attributes["carry"] + self.first.attributes["each"]
        const = set(self.body.params[each_end:])
        sources = {v: given.get(v) or stacks[v] for v in choice.kept}
        each = [v for v in choice.kept if v not in const]
        closed = [v for v in choice.kept if v in const]
        return first, self._second(choice, sources, each, closed, links)

    def _stacks(self) -> dict[Value, Value]:
        """The results of the first loop that hold the values of its body."""
        carry = self.first.attributes["carry"]
        return dict(zip(self.body.results[carry:], self.first.results[carry:], strict=True))

    def _with_stacks(self, values: list[Value]) -> Operation:
        if not values:
            return self.first
        length, body = self.first.attributes["length"], self.body
        region = Region(body.params, body.operations, (*body.results, *values), body.locals, body.location)
        stacks = [Value(v.type.batched(length), v.name) for v in values]
        return with_parts(self.first, regions=[region], results=[*self.first.results, *stacks])

    def _second(
        self,
        choice: Choice,
        sources: Mapping[Value, Value],
        each: list[Value],
        closed: list[Value],
        links: Mapping[Value, Value],
    ) -> Operation:
        op, (old,) = self.second, self.second.regions
        carry, end = op.attributes["carry"], op.attributes["carry"] + op.attributes["each"]
        b = Builder(old.location)
        env = {v: b.param(v.type, v.name) for v in (*each, *closed)}
        for made in choice.again:
            env.update(zip(made.results, b.copy(made, [env[v] for v in made.operands]), strict=True))
        now = {p: env[v] for p, v in links.items()}
        operations = (*b.operations, *(_on(o, now) for o in old.operations))
        stay = [i for i in range(carry, end) if old.params[i] not in links]
        params = (
            *old.params[:carry],
            *(old.params[i] for i in stay),
            *(env[v] for v in each),
            *old.params[end:],
            *(env[v] for v in closed),
        )
        results = tuple(now.get(v, v) for v in old.results)
        region = Region(params, operations, results, old.locals, old.location)
        operands = [
            *op.operands[:carry],
            *(op.operands[i] for i in stay),
            *(sources[v] for v in each),
            *op.operands[end:],
            *(sources[v] for v in closed),
        ]
        attributes = {**op.attributes, "each": len(stay) + len(each)}
        return with_parts(op, operands, [region], attributes)


def price(op: Operation) -> float | None:
    """What it costs to compute an operation again; None if that would be seen: effects happen once."""
    return None if op.effects or op.external else float(op.opdef.cost_of(op))


def steady_values(operations: Iterable[Operation], params: Iterable[Value]) -> set[Value]:
    """What every step computes alike, from the parameters that are the same in every step."""
    known = set(params)
    found: set[Value] = set()
    for op in operations:
        if price(op) is not None and known.issuperset(op.operands):
            known.update(op.results)
            found.update(op.results)
    return found


def _on(op: Operation, env: Mapping[Value, Value]) -> Operation:
    """`op` on other operands, itself if they are the same."""
    return with_parts(op, [env.get(v, v) for v in op.operands])


def shared_stacks(first: Operation, second: Operation, uses: Uses) -> frozenset[Value]:
    """The stacks of the first loop that somebody beside the second one uses, or the second one as a whole."""
    carry, each = second.attributes["carry"], second.attributes["each"]
    whole = {v for i, v in enumerate(second.operands) if not carry <= i < carry + each}
    stacks = first.results[first.attributes["carry"] :]
    return frozenset(v for v in stacks if v in whole or uses.get(v, set()) - {second})
