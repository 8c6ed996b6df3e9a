"""The two halves of one region in the making: the context of the rules of linearize."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stategrad.ir import Cell, Effect, Function, IRError, Operation, Region, StructuredOp, Value, clone_region

from .activity import Cells, Flags, differentiable
from .recompute import Again, recompute
from .routing import RoutingBuilder, Together

if TYPE_CHECKING:
    from .linearize import Linearized, Linearizer


class LinearizeContext:
    """The two halves of one region: while it is walked, what the rules of structured operations work with;
    afterwards the values and cells that those of the region around it need.

    `params`, `results` are those of the primal half; `tangent_params`, `result_tangents` have None where
    there is no tangent. `exit` are the outer cells whose shadow may be nonzero at the end.
    """

    by = "linearize"

    def __init__(
        self,
        run: "Linearizer",
        region: Region,
        active: Flags,
        cells: Cells,
        b: RoutingBuilder | Together,
    ) -> None:
        self.walk = run.activity
        self._wants = run.demand
        self.b = b
        self.params = [Value(v.type, v.name) for v in region.params]
        self.tangent_params = [
            self.b.linear.param(v.type, _tangent_name(v)) if flag else None
            for v, flag in zip(region.params, active, strict=True)
        ]
        self.results: list[Value] = []
        self.result_tangents: list[Value | None] = []
        self.exit: Cells = frozenset()
        self._run = run
        self._location = region.location
        self._cells = set(cells)
        self._primal = dict(zip(region.params, self.params, strict=True))
        self._tangent = {
            v: t for v, t in zip(region.params, self.tangent_params, strict=True) if t is not None
        }
        self._index = {v: i for i, v in enumerate(self.params)}
        self._held: dict[Cell, Value] = {}
        self._entry: dict[Value, Cell] = {}
        self._changed: set[Cell] = set(region.locals)

    # ------------------------------------------------------------------------------------------- the walk
    def run_all(self, region: Region) -> None:
        """Walks the region and closes the account of its cells."""
        b = self.b
        b.locals.extend(region.locals)
        b.linear.locals.extend(self._run.shadow(c) for c in region.locals if differentiable(c))
        for op in region.operations:
            if op.opdef.pure:
                self._row(op)
            elif isinstance(op.opdef, StructuredOp):
                self._structured(op.opdef, op)
            elif op.effects:
                self._effect(op)
            else:
                self._row(op)
        self.results = [b.settle(self._primal[v]) for v in region.results]
        found = [self._tangent.get(v) for v in region.results]
        flags = self._wants.results(region, [t is not None for t in found])
        self.result_tangents = [t if flag else None for t, flag in zip(found, flags, strict=True)]
        self.exit = frozenset(self._cells.difference(region.locals))

    def _row(self, op: Operation) -> None:
        operands, tangent = self.operands(op), self._tangent
        if tangent.keys().isdisjoint(op.operands) or not self._wants.any(op.results):
            self._bind(op, self.b.place(_with(op, operands)))
            return
        self.b.at(self.by, op.location)
        results, found = self.b.push(op, operands, [tangent.get(v) for v in op.operands])
        self._bind(op, results)
        for old, new in zip(op.results, found, strict=True):
            if new is not None and old.type.differentiable:
                self._hold(old, self._checked(op, new))

    def _effect(self, op: Operation) -> None:
        ((cell, effect),) = op.effects.items()
        if effect == Effect.READ:
            self._bind(op, [self.read(cell, op)])
            if not self._wants.value(op.results[0]):
                return
        else:
            self._bind(op, self.b.place(_with(op, self.operands(op))))
            self._forget([cell])
        if effect == Effect.WRITE:
            self._held[cell] = self._primal[op.operands[0]]
        tangent = self._tangent.get(op.operands[0]) if op.operands and self._wants.effect(op) else None
        found = self._tangent_effect(op, cell, effect, tangent)
        if found is not None:
            self._hold(op.results[0], found)

    def _tangent_effect(
        self, op: Operation, cell: Cell, effect: Effect, tangent: Value | None
    ) -> Value | None:
        """The effect on the shadow; outside the active cells a shadow is zero and stays untouched."""
        linear, active = self.b.linear.at(self.by, op.location), cell in self._cells
        if effect == Effect.READ:
            return linear.read(cell=self._run.shadow(cell)) if active else None
        if effect == Effect.TAKE:
            self._cells.discard(cell)
            return linear.take(cell=self._run.shadow(cell)) if active else None
        if tangent is not None:
            linear.emit(op.opdef, [tangent], {"cell": self._run.shadow(cell)})
            self._cells.add(cell)
        elif active and effect == Effect.WRITE:
            linear.take(cell=self._run.shadow(cell))
            self._cells.discard(cell)
        return None

    def _structured(self, rules: StructuredOp, op: Operation) -> None:
        self._clear_unwanted(op)
        if any(self.flags(op)) or self.active(op):
            self.b.location = op.location  # of what the rule reads for the linear half
            self._rule(rules, op)
        else:
            self._bind(op, self.primal_copy(op))
            self._forget(c for c, e in op.effects.items() if e.changes)

    def _clear_unwanted(self, op: Operation) -> None:
        """Makes the shadows zero that the operation is to leave alone, as nobody wants their tangents."""
        active = self.active(op)
        for cell in op.effects:
            if cell in active and cell not in self._wants.cells(op, active):
                self.b.linear.at(self.by, op.location).take(cell=self._run.shadow(cell))
                self._cells.discard(cell)

    def _rule(self, rules: StructuredOp, op: Operation) -> None:
        rules.linearize(self, op)

    def _bind(self, op: Operation, results: Sequence[Value]) -> None:
        for old, new in zip(op.results, results, strict=True):
            new.name = new.name or old.name
            self._primal[old] = new

    def _hold(self, value: Value, tangent: Value) -> None:
        """Says what the tangent of a value is, if anybody wants it."""
        if self._wants.value(value):
            tangent.name = tangent.name or _tangent_name(value)
            self._tangent[value] = tangent

    def _checked(self, op: Operation, tangent: Value) -> Value:
        if tangent not in self.b.linear.tangents and tangent not in self.b.sources:
            raise IRError(f"the tangent rule of {op.name} gave a value that does not depend on any tangent")
        return tangent

    def _forget(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            self._changed.add(cell)
            self._held.pop(cell, None)

    # ------------------------------------------------------------------------------------------ for rules
    def operands(self, op: Operation) -> list[Value]:
        """The primal values of the operands."""
        return [self._primal[v] for v in op.operands]

    def tangents(self, op: Operation) -> list[Value | None]:
        """The tangents of the operands, None where they are zero or the operation need not have them."""
        flags = self.flags(op)
        return [self._tangent[v] if flag else None for v, flag in zip(op.operands, flags, strict=True)]

    def flags(self, op: Operation) -> Flags:
        """Which operands have tangents that the operation needs."""
        return self._wants.operands(op, tuple(v in self._tangent for v in op.operands))

    def active(self, op: Operation) -> Cells:
        """The cells among those that the operation touches whose shadow may be nonzero now."""
        return frozenset(c for c in op.effects if c in self._cells)

    def tangent_or_zero(self, op: Operation, index: int) -> Value:
        """The tangent of an operand, made where there is none."""
        found = self._tangent.get(op.operands[index])
        return found or self.b.linear.at(self.by, op.location).zeros(op.operands[index].type)

    def read(self, cell: Cell, op: Operation | None = None) -> Value:
        """What the cell holds now in the primal program: read once, and again after each change."""
        held = self._held.get(cell)
        if held is None:
            held = self.b.read(cell=cell) if op is None else self.b.place(_with(op, ()))[0]
            held.name = held.name or cell.name
            self._held[cell] = held
            if cell not in self._changed:
                self._entry[held] = cell
        return held

    def child(self, region: Region, active: Flags, cells: Cells) -> "LinearizeContext":
        """The two halves of an inner region."""
        return self._run.region(region, active, cells)

    def function(self, callee: Function, active: Flags, cells: Cells) -> "Linearized":
        """The two halves of a callee."""
        return self._run.function(callee, active, cells)

    def recompute(self, child: "LinearizeContext") -> Again:
        """The linear half of a child, which computes the primal values it needs again."""
        return recompute(child, self._run.threader, self._run.silencer)

    def primal(
        self,
        op: Operation,
        operands: Sequence[Value],
        attributes: Mapping[str, Any],
        regions: Sequence[Region] = (),
        names: Sequence[str] = (),
    ) -> tuple[Value, ...]:
        """Emits the primal operation in the place of `op`; `names` are those of the residuals at its end."""
        types = op.opdef.infer([v.type for v in operands], attributes, regions)
        wishes = [*(r.name for r in op.results), *names, *[""] * len(types)]
        results = tuple(Value(t, n) for t, n in zip(types, wishes, strict=False))
        made = Operation(op.opdef, tuple(operands), results, attributes, tuple(regions), op.location)
        return self.b.place(made)

    def primal_copy(self, op: Operation) -> tuple[Value, ...]:
        """Copies `op` into the primal half."""
        return self.b.place(_with(op, self.operands(op)))

    def linear(
        self,
        op: Operation,
        operands: Sequence[Value],
        attributes: Mapping[str, Any],
        regions: Sequence[Region] = (),
    ) -> tuple[Value, ...]:
        """Emits the linear operation in the place of `op`; primal operands become residuals."""
        self.b.at(self.by, op.location)
        return self.b.linear.emit(op.opdef, operands, attributes, regions, (), self.b.location)

    def finish(
        self, op: Operation, results: Sequence[Value], tangents: Mapping[int, Value], exit: Cells
    ) -> None:
        """Says what the results of `op` and their tangents are, and which cells that it touches are active
        now.
        """
        self._bind(op, results)
        for i, tangent in tangents.items():
            self._hold(op.results[i], tangent)
        self._forget(c for c, e in op.effects.items() if e.changes)
        self._cells.difference_update(op.effects)
        self._cells.update(exit)

    # ----------------------------------------------------------------------------------------- afterwards
    @property
    def residuals(self) -> Mapping[Value, Value]:
        """The primal values that the linear half uses, with their parameters there."""
        return self.b.linear.residuals

    def residual(self, value: Value) -> Value:
        """The parameter of the linear half for a primal value."""
        return self.b.linear.residuals[value]

    def param_index(self, value: Value) -> int | None:
        """Which parameter of the primal half a value is."""
        return self._index.get(value)

    def entry_cell(self, value: Value) -> Cell | None:
        """The outer cell that held a value when the region was entered."""
        return self._entry.get(value)

    def primal_region(self, saved: Iterable[Value] = ()) -> Region:
        """The finished primal half, which also yields `saved`."""
        self.b.location = self._location
        return self.b.region(self.params, [*self.results, *map(self.b.settle, saved)])

    def linear_region(self, params: Sequence[Value], results: Iterable[int]) -> Region:
        """The finished linear half, which yields the tangents of these results, zero where there is none."""
        linear = self.b.linear.at(self.by, self._location)
        tangents = [(self.result_tangents[i], self.results[i].type) for i in results]
        return linear.region(params, [linear.zeros(t) if v is None else linear.use(v) for v, t in tangents])


def _with(op: Operation, operands: Sequence[Value]) -> Operation:
    """`op` on other operands, with new results and new regions."""
    results = tuple([Value(r.type, r.name) for r in op.results])
    regions = tuple(map(clone_region, op.regions)) if op.regions else ()
    return Operation(op.opdef, tuple(operands), results, op.attributes, regions, op.location)


def _tangent_name(value: Value) -> str:
    return f"d_{value.name}" if value.name else ""
