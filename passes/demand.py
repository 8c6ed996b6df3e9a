"""Which tangents can reach what is asked for, found before anything is built: the others are left out.

A walk backwards from the wanted results and final cells. Like the walks of activity it looks at a region once
per question, so a program is walked in linear time, however deep its loops. A function that is called in
several places is marked with what any of them wants.
"""

from collections.abc import Iterable, Sequence

from stategrad.ir import Cell, Effect, Operation, Region, Row, StructuredOp, Value, Zero

Flags = tuple[bool, ...]
Cells = frozenset[Cell]


class Everything:
    """The demand where every tangent is wanted."""

    def value(self, value: Value) -> bool:
        """Whether the tangent of the value is wanted."""
        return True

    def any(self, values: Sequence[Value]) -> bool:
        """Whether the tangent of one of the values is wanted."""
        return True

    def effect(self, op: Operation) -> bool:
        """Whether the tangent that a write or an accumulation leaves in its cell is wanted."""
        return True

    def operands(self, op: Operation, active: Flags) -> Flags:
        """Those of the active operands of a structured operation whose tangent is wanted by it."""
        return active

    def cells(self, op: Operation, active: Cells) -> Cells:
        """Those of the active cells whose tangent at the entry of a structured operation is wanted."""
        return active

    def results(self, region: Region, active: Sequence[bool]) -> Flags:
        """Those of the active results of a region whose tangent is wanted."""
        return tuple(active)

    def same_of(self, region: Region, copy: Region) -> None:
        """Asks of the copy of a region what was asked of the region."""


EVERYTHING = Everything()


class Demand(Everything):
    """What is wanted of a program, found by `region` before anything is asked."""

    def __init__(self) -> None:
        self._known: dict[tuple[Region, Flags, Cells], tuple[Flags, Cells]] = {}
        self._questions: dict[Region, list[tuple[Flags, Cells]]] = {}
        self._values: set[Value] = set()
        self._effects: set[Operation] = set()
        self._operands: dict[Operation, Flags] = {}
        self._cells: dict[Operation, Cells] = {}
        self._results: dict[Region, Flags] = {}

    # ------------------------------------------------------------------------------------------- the answers
    def value(self, value: Value) -> bool:
        return value in self._values

    def any(self, values: Sequence[Value]) -> bool:
        return not self._values.isdisjoint(values)

    def effect(self, op: Operation) -> bool:
        return op in self._effects

    def operands(self, op: Operation, active: Flags) -> Flags:
        return _both(active, self._operands.get(op))

    def cells(self, op: Operation, active: Cells) -> Cells:
        return active & self._cells.get(op, frozenset())

    def results(self, region: Region, active: Sequence[bool]) -> Flags:
        return _both(active, self._results.get(region))

    def same_of(self, region: Region, copy: Region) -> None:
        if copy is not region:
            for wanted, cells in self._questions.get(region, ()):
                self.region(copy, wanted, cells)

    # ---------------------------------------------------------------------------------------------- the walk
    def region(self, region: Region, wanted: Flags, cells: Cells) -> tuple[Flags, Cells]:
        """Of which parameters the tangent is wanted, and of which outer cells at the region's entry, if that
        of the flagged results is, and that of `cells` at its end.
        """
        asked = frozenset(c for c in cells if c in region.effects)
        key = region, wanted, asked
        found = self._known.get(key)
        if found is None:
            self._questions.setdefault(region, []).append((wanted, asked))
            self._results[region] = _either(self._results.get(region), wanted)
            found = self._known[key] = self._walk(*key)
        params, entry = found
        return params, entry | (cells - asked)

    def _walk(self, region: Region, wanted: Flags, cells: Cells) -> tuple[Flags, Cells]:
        want = set(_real(v for v, flag in zip(region.results, wanted, strict=True) if flag))
        now = set(cells)
        for op in reversed(region.operations):
            if isinstance(op.opdef, StructuredOp):
                self._structured(op.opdef, op, want, now)
            elif op.effects:
                self._effect(op, want, now)
            elif not want.isdisjoint(op.results) and not is_constant(op):
                for v in op.operands:
                    if v.type.differentiable:
                        want.add(v)
        self._values |= want
        now.difference_update(region.locals)
        return tuple(v in want for v in region.params), frozenset(now)

    def _structured(self, rules: StructuredOp, op: Operation, want: set[Value], now: set[Cell]) -> None:
        touched = frozenset(c for c in op.effects if c in now)
        flags = tuple(v in want for v in op.results)
        if touched or any(flags):
            operands, entry = rules.demand(self, op, flags, touched)
            want.update(_real(v for v, flag in zip(op.operands, operands, strict=True) if flag))
            now.difference_update(op.effects)
            now.update(entry)
            self._operands[op] = _either(self._operands.get(op), operands)
            self._cells[op] = self._cells.get(op, frozenset()) | entry

    def _effect(self, op: Operation, want: set[Value], now: set[Cell]) -> None:
        ((cell, effect),) = op.effects.items()
        if effect in (Effect.WRITE, Effect.ACCUMULATE) and cell in now:
            want.update(op.operands)
            self._effects.add(op)
        if effect in (Effect.WRITE, Effect.TAKE):
            now.discard(cell)
        if effect in (Effect.READ, Effect.TAKE) and op.results[0] in want:
            now.add(cell)


def is_constant(op: Operation) -> bool:
    """Whether its row says that the derivative is zero wherever it exists."""
    return isinstance(op.opdef, Row) and isinstance(op.opdef.derivative, Zero)


def demand_of(body: Region, results: Iterable[int], cells: Iterable[Cell]) -> Demand:
    """What is wanted of the body of a function if the tangents of these results, and of what these cells
    hold at its end, are asked for.
    """
    made, asked = Demand(), set(results)
    made.region(body, tuple(i in asked for i in range(len(body.results))), frozenset(cells))
    return made


def _real(values: Iterable[Value]) -> Iterable[Value]:
    return (v for v in values if v.type.differentiable)


def _both(active: Sequence[bool], wanted: Flags | None) -> Flags:
    if wanted is None:
        return (False,) * len(active)
    return tuple(a and w for a, w in zip(active, wanted, strict=True))


def _either(before: Flags | None, more: Flags) -> Flags:
    return more if before is None else tuple(a or b for a, b in zip(before, more, strict=True))
