"""Which values have tangents and which shadow cells may be nonzero, at each point, found before anything is
built.

The two walks look at a region once per question and remember the answer; loops ask until nothing grows. So a
program is built once, however deep its loops, and what the walks say is never less than what is built.
"""

from stategrad.ir import Cell, Effect, Operation, Region, StructuredOp, Value

from .demand import Everything, is_constant

Flags = tuple[bool, ...]
Cells = frozenset[Cell]


def differentiable(cell: Cell) -> bool:
    """Whether the cell has a shadow: cells of integers, booleans and keys have none."""
    return cell.type.differentiable


class Activity:
    """The walk of linearize: tangents forward, without those that nobody wants."""

    def __init__(self, demand: Everything) -> None:
        self.demand = demand
        self._known: dict[tuple[Region, Flags, Cells], tuple[Flags, Cells]] = {}

    def region(self, region: Region, active: Flags, cells: Cells) -> tuple[Flags, Cells]:
        """Which results may have tangents if the flagged parameters do, and which of the region's outer cells
        a nonzero shadow at its end if `cells` have one at its entry.
        """
        touched = frozenset(c for c in cells if c in region.effects)
        key = region, active, touched
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._walk(*key)
        results, exit = found
        return results, exit | (cells - touched)

    def _walk(self, region: Region, active: Flags, cells: Cells) -> tuple[Flags, Cells]:
        live = {v for v, a in zip(region.params, active, strict=True) if a}
        now, wants = set(cells), self.demand
        for op in region.operations:
            if isinstance(op.opdef, StructuredOp):
                self._structured(op.opdef, op, live, now)
            elif op.effects:
                tangents_of_effect(op, live, now, wants)
            elif not live.isdisjoint(op.operands) and not is_constant(op):
                live.update(r for r in op.results if r.type.differentiable and wants.value(r))
        now.difference_update(region.locals)
        return wants.results(region, [v in live for v in region.results]), frozenset(now)

    def _structured(self, rules: StructuredOp, op: Operation, live: set[Value], now: set[Cell]) -> None:
        touched = self.demand.cells(op, frozenset(c for c in op.effects if c in now))
        flags = self.demand.operands(op, tuple(v in live for v in op.operands))
        now.difference_update(op.effects)
        if touched or any(flags):
            results, exit = rules.activity(self, op, flags, touched)
            live.update(
                v for v, flag in zip(op.results, results, strict=True) if flag and self.demand.value(v)
            )
            now.update(exit)


def tangents_of_effect(op: Operation, live: set[Value], now: set[Cell], wants: Everything) -> None:
    """What one effect does to the live values and the cells with a nonzero shadow."""
    ((cell, effect),) = op.effects.items()
    active = bool(op.operands) and op.operands[0] in live and wants.effect(op)
    if effect in (Effect.READ, Effect.TAKE):
        if cell in now and wants.value(op.results[0]):
            live.update(op.results)
    elif active:
        now.add(cell)
    if effect == Effect.TAKE or (effect == Effect.WRITE and not active):
        now.discard(cell)


class LinearPart:
    """What of a linear region depends on its linear parameters and cells; the rest is known beforehand."""

    def __init__(self, region: Region, linear: Flags) -> None:
        self.values = {v for v, flag in zip(region.params, linear, strict=True) if flag}
        self.operations: list[Operation] = []
        self.producers: dict[Value, tuple[int, Operation]] = {}
        values = self.values
        for place, op in enumerate(region.operations):
            if op.effects or not values.isdisjoint(op.operands):
                self.operations.append(op)
                values.update(op.results)
            else:
                self.producers.update(dict.fromkeys(op.results, (place, op)))


class CotangentActivity:
    """The walk of transpose: cotangents backward through a linear region."""

    def __init__(self) -> None:
        self._known: dict[tuple[Region, Flags, Flags, Cells], tuple[Flags, Cells]] = {}
        self._parts: dict[tuple[Region, Flags], LinearPart] = {}

    def part(self, region: Region, linear: Flags) -> LinearPart:
        """The linear part of a region whose flagged parameters are linear."""
        found = self._parts.get((region, linear))
        if found is None:
            found = self._parts[region, linear] = LinearPart(region, linear)
        return found

    def region(self, region: Region, linear: Flags, given: Flags, cells: Cells) -> tuple[Flags, Cells]:
        """Which parameters may get a cotangent if the flagged results have one, and which outer cells may
        have a nonzero one at the region's start if `cells` have at its end.
        """
        asked = cotangents_asked(region, cells)
        key = region, linear, given, asked
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._walk(*key)
        params, exit = found
        return params, exit | (cells - asked)

    def _walk(self, region: Region, linear: Flags, given: Flags, cells: Cells) -> tuple[Flags, Cells]:
        part = self.part(region, linear)
        got = {v for v, flag in zip(region.results, given, strict=True) if flag and v in part.values}
        now = set(cells)
        for op in reversed(part.operations):
            if isinstance(op.opdef, StructuredOp):
                self._structured(op.opdef, op, part.values, got, now)
            elif op.effects:
                cotangents_of_effect(op, part.values, got, now)
            elif not got.isdisjoint(op.results):
                got.update(v for v in op.operands if v in part.values)
        now.difference_update(region.locals)
        return tuple(v in got for v in region.params), frozenset(now)

    def _structured(
        self, rules: StructuredOp, op: Operation, linear: set[Value], got: set[Value], now: set[Cell]
    ) -> None:
        touched = frozenset(c for c in op.effects if c in now)
        given = tuple(v in got for v in op.results)
        if touched or any(given):
            flags = tuple(v in linear for v in op.operands)
            operands, exit = rules.cotangent_activity(self, op, flags, given, touched)
            got.update(v for v, flag in zip(op.operands, operands, strict=True) if flag and v in linear)
            now.difference_update(op.effects)
            now.update(exit)


def cotangents_asked(region: Region, cells: Cells) -> Cells:
    """Those of the cells whose cotangent on exit makes a difference to the transposed region: what a region
    only reads it only adds to, nonzero or not.
    """
    return frozenset(c for c in cells if c in region.effects and region.effects[c].changes)


def cotangents_of_effect(op: Operation, linear: set[Value], got: set[Value], now: set[Cell]) -> None:
    """What one transposed effect does to the values with a cotangent and the cells with a nonzero one."""
    ((cell, effect),) = op.effects.items()
    if effect in (Effect.WRITE, Effect.ACCUMULATE):
        if cell in now and op.operands[0] in linear:
            got.add(op.operands[0])
        if effect == Effect.WRITE:
            now.discard(cell)
    elif op.results[0] in got:
        now.add(cell)
    elif effect == Effect.TAKE:
        now.discard(cell)
