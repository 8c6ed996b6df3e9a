"""Residuals of loops: a scan stacks a value of each step, and a later scan takes them apart again.

The later loop may get a value in two ways. It takes the slices of a stack; or it computes the value again
from what it can have for less: the slices that the first loop was given, what both close over, other stacks.
And what a step of the first loop hands to the next one is what the next one was handed: a loop that runs the
other way round meets it one step earlier, and carries it along.
"""

from collections.abc import Iterable, Mapping

from stategrad.ir import Builder, Operation, Region, Value
from stategrad.ir.record import record

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


@record
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
        handed = list(self._handed_on)
        while True:
            found = self._choose(rate, handed)
            carried = self.carried(found)
            wrong = {v for v in handed if v in found.kept and v not in carried}
            if not wrong:
                return found
            handed = [v for v in handed if v not in wrong]

    def _choose(self, rate: float, handed: Iterable[Value]) -> Choice:
        free = set(self.given).union(self._kept_anyway(), handed)
        end = self.first.attributes["carry"] + self.first.attributes["each"]
        invariant = steady_values(self.body.operations, self.body.params[end:])

        def keep(v: Value) -> float | None:
            return None if v in invariant else 0.0 if v in free else rate * bytes_of(v.type)

        return choose(self.body.operations, self.links.values(), keep, price)

    @property
    def _handed_on(self) -> dict[Value, int]:
        """What steps hand to the next ones, with its place, if the loops run in opposite directions."""
        if self.first.attributes["reverse"] == self.second.attributes["reverse"]:
            return {}
        anyway = set(self._kept_anyway()).union(self.given)
        outs = self.body.results[: self.first.attributes["carry"]]
        return {v: i for i, v in enumerate(outs) if v is not self.body.params[i] and v not in anyway}

    def carried(self, choice: Choice) -> dict[Value, int]:
        """The kept values that the second loop carries along, with their places among those of the first: of
        what steps hand on, that for which what they were handed themselves is kept.
        """
        kept = set(choice.kept)
        return {v: i for v, i in self._handed_on.items() if v in kept and self.body.params[i] in kept}

    def kept_bytes(self, choice: Choice) -> int:
        """The memory of the stacks that are there for the second loop alone."""
        free = set(self.given).union(self._kept_anyway(), self.carried(choice))
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
        given, carried = self.given, self.carried(choice)
        kept = [v for v in choice.kept if v not in carried]
        first = self._with_stacks([v for v in kept if v not in given and v not in self._stacks()])
        stacks = ScanPair(first, self.second, self.shared)._stacks()
        sources = {v: given.get(v) or stacks[v] for v in kept}
        return first, _Second(self, choice, sources, carried).rebuilt()

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


class _Second:
    """The second loop in the making: it takes what is kept from `sources`, carries along what is `carried`,
    and computes the rest.
    """

    def __init__(
        self, pair: ScanPair, choice: Choice, sources: Mapping[Value, Value], carried: Mapping[Value, int]
    ) -> None:
        first, self._op = pair.first, pair.second
        (self._old,) = self._op.regions
        self._links, self._sources = pair.links, sources
        const = set(pair.body.params[first.attributes["carry"] + first.attributes["each"] :])
        self._each = [v for v in sources if v not in const]
        self._closed = [v for v in sources if v in const]
        self._carried = list(carried)
        self._start = [first.results[i] for i in carried.values()]
        self._b = Builder(self._old.location)
        self._env = {v: Value(v.type, v.name) for v in (*self._carried, *sources)}
        for op in choice.again:
            results = zip(op.results, self._b.copy(op, [self._env[v] for v in op.operands]), strict=True)
            self._env.update((v, new) for v, new in results if v not in self._env)
        self._handed = [self._env[pair.body.params[i]] for i in carried.values()]

    def rebuilt(self) -> Operation:
        op = self._op
        carry = op.attributes["carry"]
        end = carry + op.attributes["each"]
        stay = [i for i in range(carry, end) if self._old.params[i] not in self._links]
        operands = [
            *op.operands[:carry],
            *self._start,
            *(op.operands[i] for i in stay),
            *(self._sources[v] for v in self._each),
            *op.operands[end:],
            *(self._sources[v] for v in self._closed),
        ]
        lengths = {"carry": carry + len(self._carried), "each": len(stay) + len(self._each)}
        ends = [Value(v.type, v.name) for v in self._carried]
        results = [*op.results[:carry], *ends, *op.results[carry:]]
        return with_parts(
            op, operands, [self._region(carry, end, stay)], {**op.attributes, **lengths}, results
        )

    def _region(self, carry: int, end: int, stay: list[int]) -> Region:
        old, env = self._old, self._env
        now = {p: env[v] for p, v in self._links.items()}
        params = (
            *old.params[:carry],
            *(env[v] for v in self._carried),
            *(old.params[i] for i in stay),
            *(env[v] for v in self._each),
            *old.params[end:],
            *(env[v] for v in self._closed),
        )
        results = [now.get(v, v) for v in old.results]
        results[carry:carry] = self._handed
        operations = (*self._b.operations, *(_on(op, now) for op in old.operations))
        return Region(params, operations, tuple(results), old.locals, old.location)


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
