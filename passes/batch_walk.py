"""Which values and cells carry a batch axis at each point, found before anything is built."""

from collections.abc import Hashable, Iterator

from stategrad.ir import Cell, Effect, Function, Operation, Region, StructuredOp, Value

Flags = tuple[bool, ...]
Cells = frozenset[Cell]


class BatchWalk:
    """Looks at a region once for each pattern of parameters and cells that carry the axis; loops ask until
    nothing grows.

    Args:
        axis: the name of the axis, if it has one, and its length.
    """

    def __init__(self, axis: tuple[Hashable, int] = (None, 0)) -> None:
        self.axis = axis
        self._along: dict[Region, bool] = {}
        self._known: dict[tuple[Region, Flags, Cells], tuple[Flags, Cells]] = {}

    def names_axis(self, op: Operation) -> bool:
        """Whether the operation, or one inside of it, works along the axis by its name."""
        return self.axis[0] is not None and (
            self.axis[0] in op.opdef.named_axes(op) or any(map(self._inside, _regions_of(op)))
        )

    def _inside(self, region: Region) -> bool:
        found = self._along.get(region)
        if found is None:
            found = self._along[region] = any(map(self.names_axis, region.operations))
        return found

    def results(self, region: Region, batched: Flags) -> Flags:
        """Which results of a pure region carry the axis if the flagged parameters do."""
        return self.region(region, batched, frozenset())[0]

    def region(self, region: Region, batched: Flags, cells: Cells) -> tuple[Flags, Cells]:
        """Which results carry the axis if the flagged parameters do, and which of the region's outer cells at
        its end if `cells` do at its entry.
        """
        touched = frozenset(c for c in cells if c in region.effects)
        key = region, batched, touched
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._walk(*key)
        results, exit = found
        return results, exit | (cells - touched)

    def _walk(self, region: Region, batched: Flags, cells: Cells) -> tuple[Flags, Cells]:
        wide = {v for v, flag in zip(region.params, batched, strict=True) if flag}
        now = set(cells)
        for op in region.operations:
            if isinstance(op.opdef, StructuredOp):
                self._structured(op.opdef, op, wide, now)
            elif op.effects:
                _effect(op, wide, now)
            elif self.names_axis(op):
                flags = op.opdef.carried_along(op, tuple(v in wide for v in op.operands), self.axis)
                wide.update(v for v, flag in zip(op.results, flags, strict=True) if flag)
            elif not wide.isdisjoint(op.operands):
                wide.update(op.results)
        now.difference_update(region.locals)
        return tuple(v in wide for v in region.results), frozenset(now)

    def _structured(self, rules: StructuredOp, op: Operation, wide: set[Value], now: set[Cell]) -> None:
        touched = frozenset(c for c in op.effects if c in now)
        flags = tuple(v in wide for v in op.operands)
        if touched or any(flags) or self.names_axis(op):
            results, exit = rules.batched(self, op, flags, touched)
            wide.update(v for v, flag in zip(op.results, results, strict=True) if flag)
            now.difference_update(op.effects)
            now.update(exit)


def _regions_of(op: Operation) -> Iterator[Region]:
    """The regions inside of an operation, and the body of the function that it calls."""
    yield from op.regions
    callee = op.attributes.get("callee")
    if isinstance(callee, Function):
        yield callee.body


def _effect(op: Operation, wide: set[Value], now: set[Cell]) -> None:
    """What one effect does. What is written decides alone; a sum carries the axis if a part does; what is
    left after a take is the same zero for all.
    """
    ((cell, effect),) = op.effects.items()
    if effect in (Effect.READ, Effect.TAKE):
        if cell in now:
            wide.update(op.results)
    elif op.operands[0] in wide:
        now.add(cell)
    if effect == Effect.TAKE or (effect == Effect.WRITE and op.operands[0] not in wide):
        now.discard(cell)
