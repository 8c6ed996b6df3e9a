"""The transpose of one region in the making: the context of the rules of transpose."""

from collections.abc import Mapping, Sequence, Set
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from stategrad.ir import (
    Builder,
    Cell,
    DerivativeError,
    Effect,
    Function,
    Operation,
    Region,
    StructuredOp,
    Type,
    Value,
)

from .activity import Cells, Flags

if TYPE_CHECKING:
    from .transpose import Transposed, Transposer


class TransposeContext:
    """Something linear that is walked backwards: what the rules of structured operations work with.

    Args:
        linear: the values that depend on tangents.
        cells: the cells that have a cotangent at the end.
    """

    def __init__(self, run: "Transposer", b: Builder, linear: Set[Value], cells: Cells) -> None:
        self.walk = run.activity
        self.b = b
        self._run = run
        self._linear = linear
        self._known: dict[Value, Value] = {}
        self._cotangent: dict[Value, Value] = {}
        self._cells = set(cells)

    # ------------------------------------------------------------------------------------------- the walk
    def _step(self, op: Operation) -> None:
        if op.opdef.pure:
            self._row(op)
        elif isinstance(op.opdef, StructuredOp):
            if any(self.given(op)) or self.active(op):
                self._structured(op.opdef, op)
        elif op.effects:
            self._effect(op)
        else:
            self._row(op)

    def _structured(self, rules: StructuredOp, op: Operation) -> None:
        rules.transpose(self, op)

    def _row(self, op: Operation) -> None:
        if self._cotangent.keys().isdisjoint(op.results):
            return
        linear, known = self._linear, self._known
        operands = [None if v in linear else known.get(v) or self.known(v) for v in op.operands]
        b = self.b.at("transpose", op.location)
        found = op.opdef.transpose_of(b, op, self.cotangents(op), operands)
        for value, cotangent in zip(op.operands, found, strict=True):
            if cotangent is not None:
                self.add(value, cotangent)

    def _effect(self, op: Operation) -> None:
        """The table of the four effects; an inactive cell has a zero cotangent and stays untouched."""
        ((cell, effect),) = op.effects.items()
        b, shadow, active = (
            self.b.at("transpose", op.location),
            self._run.cotangent_cell(cell),
            cell in self._cells,
        )
        if effect in (Effect.WRITE, Effect.ACCUMULATE):
            if active:
                self.add(op.operands[0], (b.take if effect == Effect.WRITE else b.read)(cell=shadow))
            if effect == Effect.WRITE:
                self._cells.discard(cell)
            return
        cotangent = self._cotangent.get(op.results[0])
        if cotangent is not None:
            (b.write if effect == Effect.TAKE else b.accumulate)(cotangent, cell=shadow)
            self._cells.add(cell)
        elif active and effect == Effect.TAKE:
            b.take(cell=shadow)
            self._cells.discard(cell)

    # ------------------------------------------------------------------------------------------ for rules
    def linear_flags(self, op: Operation) -> Flags:
        """Which operands are linear."""
        return tuple(v in self._linear for v in op.operands)

    def given(self, op: Operation) -> Flags:
        """Which results have a cotangent."""
        return tuple(v in self._cotangent for v in op.results)

    def cotangents(self, op: Operation) -> list[Value | None]:
        """The cotangents of the results."""
        return [self._cotangent.get(v) for v in op.results]

    def cotangent_or_zero(self, op: Operation, index: int) -> Value:
        """The cotangent of a result, made where there is none."""
        found = self._cotangent.get(op.results[index])
        return found or self.b.at("transpose", op.location).zeros(op.results[index].type)

    def active(self, op: Operation) -> Cells:
        """The cells among those that the operation touches whose cotangent may be nonzero now."""
        return frozenset(c for c in op.effects if c in self._cells)

    def known(self, value: Value) -> Value:
        """The value of something that is not linear."""
        raise NotImplementedError

    def add(self, value: Value, cotangent: Value) -> None:
        """Adds to the cotangent of a value; what is not linear has none."""
        if value not in self._linear:
            return
        before = self._cotangent.get(value)
        total = cotangent if before is None else self.b.add(before, cotangent)
        total.name = total.name or cotangent_name(value)
        self._cotangent[value] = total

    def child(self, region: Region, linear: Flags, given: Flags, cells: Cells) -> "RegionTranspose":
        """The transposed inner region."""
        return self._run.region(region, linear, given, cells)

    def function(self, callee: Function, linear: Flags, given: Flags, cells: Cells) -> "Transposed":
        """The pullback of a callee."""
        return self._run.function(callee, linear, given, cells)

    def emit(
        self,
        op: Operation,
        operands: Sequence[Value],
        attributes: Mapping[str, Any],
        regions: Sequence[Region] = (),
    ) -> tuple[Value, ...]:
        """Emits the transposed operation in the place of `op`."""
        self.b.at("transpose", op.location)
        return self.b.emit(op.opdef, operands, attributes, regions)

    def leave(self, op: Operation, exit: Cells) -> None:
        """Says which of the cells that `op` touches have a cotangent before it."""
        self._cells.difference_update(op.effects)
        self._cells.update(exit)

    def cotangent_cell(self, cell: Cell) -> Cell:
        """The cell of the cotangent of a cell."""
        return self._run.cotangent_cell(cell)

    def accumulator(self, type: Type) -> Cell:
        """A fresh cell to sum cotangents in."""
        return Cell(self._run.names.cells.fresh("acc"), type, "accumulator")


class RegionTranspose(TransposeContext):
    """The transpose of one region in the making.

    `known_params` are the values of the parameters that are not linear, `given_results` the cotangents of the
    results; afterwards `found` are the cotangents of the parameters, and `exit` the outer cells whose
    cotangent may be nonzero. All have None where there is nothing.
    """

    def __init__(
        self,
        run: "Transposer",
        b: Builder,
        region: Region,
        known: Sequence[Value | None],
        given: Sequence[Value | None],
        cells: Cells,
    ) -> None:
        self._part = run.activity.part(region, tuple(v is None for v in known))
        super().__init__(run, b, self._part.values, cells)
        self.known_params = known
        self.given_results = given
        self.found: list[Value | None] = []
        self.exit: Cells = frozenset()
        self._region = region
        self._known.update((p, v) for p, v in zip(region.params, known, strict=True) if v is not None)

    def run_all(self) -> None:
        """Walks the linear operations backwards; the others are copied where their results are needed."""
        region = self._region
        for value, cotangent in zip(region.results, self.given_results, strict=True):
            if cotangent is not None:
                self.add(value, cotangent)
        for op in reversed(self._part.operations):
            self._step(op)
        self.b.locals.extend(map(self._run.cotangent_cell, region.locals))
        self.found = [self._cotangent.get(v) for v in region.params]
        self.exit = frozenset(self._cells.difference(region.locals))

    def known(self, value: Value) -> Value:
        """The value of something that is not linear; what it depends on is copied here."""
        found = self._known.get(value)
        if found is None:
            self._copy_up_to(value)
            found = self._known[value]
        return found

    def found_or_zero(self, index: int) -> Value:
        """The cotangent of a parameter, made where there is none."""
        found = self.found[index]
        return found or self.b.zeros(self._region.params[index].type)

    def region(self, params: Sequence[Value | None], results: Sequence[Value | None]) -> Region:
        """The finished region.

        Raises:
            DerivativeError: a value is missing, so the region was not linear.
        """
        self.b.at("transpose", self._region.location)
        return self.b.region(_all(params), _all(results))

    def _copy_up_to(self, value: Value) -> None:
        producers, needed, waiting = self._part.producers, dict[int, Operation](), [value]
        while waiting:
            v = waiting.pop()
            if v in self._known:
                continue
            if v not in producers:
                raise DerivativeError(f"%{v.name} is used as if it were known, but depends on what is linear")
            place, op = producers[v]
            if place not in needed:
                needed[place] = op
                waiting.extend(op.operands)
        for _, op in sorted(needed.items(), key=itemgetter(0)):
            copies = self.b.copy(op, [self._known[v] for v in op.operands])
            self._known.update(zip(op.results, copies, strict=True))


def cotangent_name(value: Value) -> str:
    """What the cotangent of a value is called."""
    return f"ct_{value.name.removeprefix('d_')}" if value.name else ""


def _all(values: Sequence[Value | None]) -> list[Value]:
    if any(v is None for v in values):
        raise DerivativeError("a region that should be transposed is not linear in what it carries")
    return [v for v in values if v is not None]
