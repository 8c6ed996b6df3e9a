"""transpose: a linear program backwards, its effects reversed onto cotangent cells.

    @f.lin(known, tangents) -> tangents of results
    @f.lin.T(known, cotangents of results) -> cotangents of the linear parameters

The cell `$s.ct` holds at entry of @f.lin.T the cotangent of what `$s` holds at the exit of @f.lin, and at its
exit the cotangent of what `$s` held at the entry.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

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

from .activity import Cells, CotangentActivity, Flags, cotangents_asked
from .names import Fresh, with_own_locals


@dataclass(frozen=True)
class Transposed:
    """The pullback of a linear function: it returns the cotangents of those parameters that `results` lists;
    the others get none. `exit` are the cells (of the linear function) whose cotangent may be nonzero at its
    end.
    """

    function: Function
    results: tuple[int, ...]
    exit: Cells
    cotangent_cells: Mapping[Cell, Cell]


def transpose_function(
    function: Function,
    linear: Sequence[bool] | None = None,
    given: Sequence[bool] | None = None,
    cells: Iterable[Cell] | None = None,
    names: Fresh | None = None,
) -> Transposed:
    """The pullback of a linear function: parameters are the known ones and then a cotangent for each flagged
    result.

    Args:
        linear: which parameters the function is linear in; by default all after the first `known` ones, as
            the function's attribute of that name says.
        given: which results have a cotangent; by default all.
        cells: the cells that have a cotangent on exit; by default all that the function touches.

    Raises:
        DerivativeError: the function is not linear.
    """
    known = function.attributes.get("known", 0)
    linear = linear or [i >= known for i in range(len(function.params))]
    given = given or [True] * len(function.results)
    active = frozenset(function.effects if cells is None else cells)
    run = Transposer(names or Fresh.beside(function, cells=active))
    return run.function(function, tuple(linear), tuple(given), active)


class Transposer:
    """One run: its cotangent cells are fresh, and each function is transposed once for each pattern."""

    def __init__(self, names: Fresh) -> None:
        self.names = names
        self.activity = CotangentActivity()
        self.cotangent_cells: dict[Cell, Cell] = {}
        self._functions: dict[tuple[Function, Flags, Flags, Cells], Transposed] = {}

    def cotangent_cell(self, cell: Cell) -> Cell:
        """The cell of the cotangent of a cell. Between a shadow and its cotangent only the role changes."""
        found = self.cotangent_cells.get(cell)
        if found is None:
            role = _OPPOSITE.get(cell.role, "cotangent")
            of = cell.of if cell.of is not None and cell.role in _OPPOSITE else cell
            name = self.names.cells.fresh(f"{of.name}.{_SUFFIX[role]}")
            found = self.cotangent_cells[cell] = Cell(name, cell.type, role, of)
        return found

    def region(self, region: Region, linear: Flags, given: Flags, cells: Cells) -> "TransposeContext":
        """The transposed region, still open; parameters are what is known and the given cotangents."""
        known = [
            None if flag else Value(v.type, v.name) for v, flag in zip(region.params, linear, strict=True)
        ]
        cotangents = [
            Value(v.type, _cotangent_name(v)) if flag else None
            for v, flag in zip(region.results, given, strict=True)
        ]
        return self.region_into(Builder(), region, known, cotangents, cells)

    def region_into(
        self,
        b: Builder,
        region: Region,
        known: Sequence[Value | None],
        given: Sequence[Value | None],
        cells: Cells,
    ) -> "TransposeContext":
        """The transposed region, emitted at the place of `b`; parameters without a value in `known` are
        linear.
        """
        made = TransposeContext(self, b, region, known, given, cells)
        made.run_all()
        return made

    def function(self, function: Function, linear: Flags, given: Flags, cells: Cells) -> Transposed:
        """The pullback of a function for this pattern."""
        asked = cotangents_asked(function.body, cells)
        key = function, linear, given, asked
        found = self._functions.get(key)
        if found is None:
            found = self._functions[key] = self._transpose(function, linear, given, asked)
        return replace(found, exit=found.exit | (cells - asked))

    def _transpose(self, function: Function, linear: Flags, given: Flags, cells: Cells) -> Transposed:
        inner = self.region(with_own_locals(function.body), linear, given, cells)
        back = [i for i, c in enumerate(inner.found) if c is not None]
        known = [v for v in inner.known_params if v is not None]
        region = inner.region(
            [*known, *(v for v in inner.given_results if v is not None)], [inner.found[i] for i in back]
        )
        name = self.names.functions.fresh(f"{function.name}.T")
        made = Function(name, region, {"known": len(known)}, function.location)
        return Transposed(made, tuple(back), inner.exit, self.cotangent_cells)


class TransposeContext:
    """One region being transposed: what the rules of structured operations work with.

    `known` are the values of the parameters that are not linear, `given` the cotangents of the results;
    afterwards `found` are the cotangents of the parameters, and `exit` the outer cells whose cotangent may be
    nonzero. All have None where there is nothing.
    """

    def __init__(
        self,
        run: Transposer,
        b: Builder,
        region: Region,
        known: Sequence[Value | None],
        given: Sequence[Value | None],
        cells: Cells,
    ) -> None:
        self.walk = run.activity
        self.b = b
        self.known_params = known
        self.given_results = given
        self.found: list[Value | None] = []
        self.exit: Cells = frozenset()
        self._run = run
        self._region = region
        self._part = run.activity.part(region, tuple(v is None for v in known))
        self._known = {p: v for p, v in zip(region.params, known, strict=True) if v is not None}
        self._cotangent: dict[Value, Value] = {}
        self._cells = set(cells)

    # ------------------------------------------------------------------------------------------- the walk
    def run_all(self) -> None:
        """Walks the linear operations backwards; the others are copied where their results are needed."""
        region = self._region
        for value, cotangent in zip(region.results, self.given_results, strict=True):
            if cotangent is not None:
                self.add(value, cotangent)
        for op in reversed(self._part.operations):
            if isinstance(op.opdef, StructuredOp):
                if any(self.given(op)) or self.active(op):
                    op.opdef.transpose(self, op)
            elif op.effects:
                self._effect(op)
            else:
                self._row(op)
        self.b.locals.extend(map(self._run.cotangent_cell, region.locals))
        self.found = [self._cotangent.get(v) for v in region.params]
        self.exit = frozenset(self._cells.difference(region.locals))

    def _row(self, op: Operation) -> None:
        cotangents = self.cotangents(op)
        if all(c is None for c in cotangents):
            return
        operands = [None if v in self._part.values else self.known(v) for v in op.operands]
        self.b.at("transpose", op.location)
        for value, cotangent in zip(
            op.operands, op.opdef.transpose_of(self.b, op, cotangents, operands), strict=True
        ):
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
        return tuple(v in self._part.values for v in op.operands)

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
        """The value of something that is not linear; operations that it depends on are copied here."""
        found = self._known.get(value)
        if found is None:
            self._copy_up_to(value)
            found = self._known[value]
        return found

    def add(self, value: Value, cotangent: Value) -> None:
        """Adds to the cotangent of a value; what is not linear has none."""
        if value not in self._part.values:
            return
        before = self._cotangent.get(value)
        total = cotangent if before is None else self.b.add(before, cotangent)
        total.name = total.name or _cotangent_name(value)
        self._cotangent[value] = total

    def child(self, region: Region, linear: Flags, given: Flags, cells: Cells) -> "TransposeContext":
        """The transposed inner region."""
        return self._run.region(region, linear, given, cells)

    def function(self, callee: Function, linear: Flags, given: Flags, cells: Cells) -> Transposed:
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

    # ----------------------------------------------------------------------------------------- as a child
    def found_or_zero(self, index: int) -> Value:
        """The cotangent of a parameter, made where there is none."""
        found = self.found[index]
        return found or self.b.zeros(self._region.params[index].type)

    def cotangent_cell(self, cell: Cell) -> Cell:
        """The cell of the cotangent of a cell."""
        return self._run.cotangent_cell(cell)

    def accumulator(self, type: Type) -> Cell:
        """A fresh cell to sum cotangents in."""
        return Cell(self._run.names.cells.fresh("acc"), type, "accumulator")

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


_OPPOSITE = {"tangent": "cotangent", "cotangent": "tangent"}
_SUFFIX = {"tangent": "t", "cotangent": "ct"}


def _cotangent_name(value: Value) -> str:
    return f"ct_{value.name.removeprefix('d_')}" if value.name else ""


def _all(values: Sequence[Value | None]) -> list[Value]:
    if any(v is None for v in values):
        raise DerivativeError("a region that should be transposed is not linear in what it carries")
    return [v for v in values if v is not None]
