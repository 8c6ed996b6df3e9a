"""How values get into the regions of a structured operation, out of them, and around.

The one place where the simplifying passes know the structured operations; all else they do is generic.
"""

from collections.abc import Callable, Sequence

from stategrad.ir import Function, Operation, Region, Value
from stategrad.ir.record import record

CONTROL = -1
"""In `Ports.results`: the region result steers the operation and is none of its results."""


@record
class Ports:
    """For each region, the operand that each parameter takes and the result that each region result becomes.

    The first `carried` operands and results go around: result i of the region is parameter i of the next
    step. Only all parts of a carry at once can be dropped. `sliced` operands enter one slice a step.
    `repeats` is whether a region may run several times in a row.
    """

    params: tuple[Sequence[int], ...]
    results: tuple[Sequence[int], ...]
    carried: int = 0
    sliced: range = range(0)
    repeats: bool = False

    def whole(self, operand: int) -> bool:
        """Whether the parameters of this operand hold it as it is, at every step."""
        return operand >= self.carried and operand not in self.sliced

    def control(self, operands: int) -> list[int]:
        """The operands, of so many, that no region takes: they steer the operation itself."""
        taken = set().union(*self.params)
        return [i for i in range(operands) if i not in taken]


def _scan(op: Operation) -> Ports:
    carry, each = op.attributes["carry"], op.attributes["each"]
    everything = range(len(op.operands))
    return Ports((everything,), (range(len(op.results)),), carry, range(carry, carry + each), repeats=True)


def _while(op: Operation) -> Ports:
    carry, test = op.attributes["carry"], op.attributes["cond_const"]
    body = [*range(carry), *range(carry + test, len(op.operands))]
    return Ports((range(carry + test), body), ((CONTROL,), range(carry)), carry, repeats=True)


def _cond(op: Operation) -> Ports:
    count = len(op.regions)
    return Ports((range(1, len(op.operands)),) * count, (range(len(op.results)),) * count)


def _once(op: Operation) -> Ports:
    return Ports((range(len(op.operands)),), (range(len(op.results)),))


_PORTS: dict[str, Callable[[Operation], Ports]] = {
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "remat": _once,
    "call": _once,
}


def ports(op: Operation) -> Ports | None:
    """The ports of a structured operation; None for a plain one, and for one that is to be left as it is."""
    find = _PORTS.get(op.name)
    return find(op) if find else None


def bodies(op: Operation) -> tuple[Region, ...]:
    """The regions that the ports speak of: those of the operation, or its callee's body."""
    callee = op.attributes.get("callee")
    return (callee.body,) if isinstance(callee, Function) else op.regions


def with_consts(
    op: Operation, operands: Sequence[Value], regions: Sequence[Region], extra: Sequence[Sequence[Value]]
) -> Operation:
    """`op` on `operands` and more const operands: the last parameters of `regions[k]` take `extra[k]`.

    Only a `while` has const operands for each region; elsewhere all regions share `extra[0]`.
    """
    attributes = op.attributes
    if op.name == "while":
        first = attributes["carry"] + attributes["cond_const"]
        operands = [*operands[:first], *extra[0], *operands[first:], *extra[1]]
        attributes = {**attributes, "cond_const": attributes["cond_const"] + len(extra[0])}
    else:
        operands = [*operands, *extra[0]]
    return Operation(op.opdef, tuple(operands), op.results, attributes, tuple(regions), op.location)


def with_settled(op: Operation, settled: Sequence[int]) -> Operation:
    """`op` without the carries `settled`, which never change; their operands become const operands."""
    found = _PORTS[op.name](op)
    stays = [i not in settled for i in range(len(op.operands))]
    moved = [op.operands[i] for i in settled]
    regions, params = [], []
    for region, slots, targets in zip(op.regions, found.params, found.results, strict=True):
        kept = [p for p, slot in zip(region.params, slots, strict=True) if stays[slot]]
        last = [region.params[slots.index(i)] for i in settled]
        results = [v for v, target in zip(region.results, targets, strict=True) if target not in settled]
        params.append(moved)
        regions.append(
            Region((*kept, *last), region.operations, tuple(results), region.locals, region.location)
        )
    results = tuple(r for i, r in enumerate(op.results) if i not in settled)
    attributes = {**op.attributes, **segment_lengths(op, stays)}
    without = Operation(op.opdef, (), results, attributes, op.regions, op.location)
    return with_consts(
        without, [v for v, kept in zip(op.operands, stays, strict=True) if kept], regions, params
    )


def shares_consts(op: Operation) -> bool:
    """Whether every region takes all operands that are not carried or sliced."""
    return op.name != "while"


def segment_lengths(op: Operation, kept: Sequence[bool]) -> dict[str, int]:
    """The attributes that count operand groups, after only the operands flagged in `kept` are left."""
    found: dict[str, int] = {}
    start = 0
    for name in op.opdef.segments[:-1]:
        stop = start + op.attributes[name]
        found[name] = sum(kept[start:stop])
        start = stop
    return found
