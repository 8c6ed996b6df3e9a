"""The tape of a gradient: what depends on tangents, in order, for a pullback that follows at once.

No program of its own is made of it. All that was computed is at hand there, so nothing is handed over as a
residual, a linear operation is asked for its transpose itself, and cotangents of cells are plain values until
something with a body touches the cell.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stategrad.ir import (
    Builder,
    Cell,
    Derived,
    Effect,
    Linear,
    OpDef,
    Operation,
    Row,
    StructuredOp,
    Type,
    Value,
)

from .pullback import TransposeContext
from .routing import LinearHalf, RoutingBuilder, is_source

if TYPE_CHECKING:
    from .transpose import Transposer


class Differential(NamedTuple):
    """The differential of an operation that is linear: in all operands that have tangents, or in each."""

    op: Operation
    """Of the primal program."""
    tangents: Sequence[Value | None]
    result: Value
    """The tangent of its result."""


class Tape(LinearHalf):
    """Takes down what depends on tangents; operands are tangents and primal values. Anything else that is
    emitted here goes to the primal program.
    """

    def __init__(self, primal: Builder) -> None:
        super().__init__({})
        self.entries: list[Operation | Differential] = []
        self._primal = primal

    def use(self, value: Value) -> Value:
        return value

    def make(self, opdef: OpDef, operands: Sequence[Value], *rest: object) -> tuple[Value, ...]:
        return Builder.make(self, opdef, operands, *rest)

    def append(self, op: Operation) -> tuple[Value, ...]:
        if not op.effects and self.tangents.isdisjoint(op.operands):
            return self._primal.append(op)
        self.tangents.update(op.results)
        self.entries.append(op)
        return op.results

    def differential(self, op: Operation, tangents: Sequence[Value | None]) -> Value:
        """The tangent of the only result of a linear operation."""
        made = Value(op.result.type)
        self.tangents.add(made)
        self.entries.append(Differential(op, tangents, made))
        return made


class TapingBuilder(RoutingBuilder):
    """Builds the primal program, and passes on what has a tangent among its operands to a tape."""

    def __init__(self) -> None:
        self.tape = Tape(self)
        super().__init__(self.tape)
        self._constants: dict[Any, Value] = {}

    def constant(self, value: Any, type: Type, name: str = "") -> Value:
        """A constant; rules ask for the same few scalars again and again."""
        if getattr(value, "shape", ()):
            return super().constant(value, type, name)
        key = type, np.asarray(value).dtype, np.asarray(value).tobytes()
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = super().constant(value, type, name)
        return found

    def push(
        self, op: Operation, operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> tuple[Sequence[Value], Sequence[Value | None]]:
        if not isinstance(op.opdef, Row) or not isinstance(op.opdef.derivative, Linear):
            return super().push(op, operands, tangents)
        made = Operation(op.opdef, tuple(operands), (Value(op.result.type),), op.attributes, (), op.location)
        self.operations.append(made)
        return made.results, (self.tape.differential(made, tangents),)

    def append(self, op: Operation) -> tuple[Value, ...]:
        if is_source(op):
            self.sources.update(dict.fromkeys(op.results, op))
        self.operations.append(op)
        return op.results

    def place(self, op: Operation) -> tuple[Value, ...]:
        return self.append(op)

    def settle(self, value: Value) -> Value:
        return value


class TapeTranspose(TransposeContext):
    """The walk backwards along the tape of `b`, which goes on with the pullback.

    Args:
        values: for some tangents the cotangent at the end, if there is one.
        cells: for some shadow cells the cotangent of what they hold at the end.
    """

    def __init__(
        self,
        run: "Transposer",
        b: TapingBuilder,
        values: Sequence[tuple[Value | None, Value]],
        cells: Sequence[tuple[Cell, Value]],
    ) -> None:
        super().__init__(run, b, b.tape.tangents, frozenset())
        self._sums: dict[Cell, Value] = {}
        self._in_memory: set[Cell] = set()
        for cell, cotangent in cells:
            self._accumulate(cell, cotangent)
        for tangent, cotangent in values:
            if tangent is not None:
                self.add(tangent, cotangent)
        for entry in reversed(b.tape.entries):
            if type(entry) is Differential:
                self._differential(entry)
            else:
                self._step(entry)

    # ------------------------------------------------------------------------------------------- afterwards
    def cotangent(self, tangent: Value) -> Value:
        """The cotangent of a tangent that was given, made where there is none."""
        return self._cotangent.get(tangent) or self.b.zeros(tangent.type)

    def cotangent_held(self, cell: Cell) -> Value:
        """The cotangent of what a cell held at the start."""
        if cell not in self._cells:
            return self.b.zeros(cell.type)
        return self.b.read(cell=self.cotangent_cell(cell)) if cell in self._in_memory else self._sums[cell]

    # ------------------------------------------------------------------------------------------- the walk
    def known(self, value: Value) -> Value:
        return value

    def _differential(self, entry: Differential) -> None:
        op, cotangent = entry.op, self._cotangent.get(entry.result)
        if cotangent is None:
            return
        b = self.b.at("transpose", Derived("linearize", op.location))
        rule = op.opdef.derivative
        everything = rule.over == "all"
        for i, tangent in enumerate(entry.tangents):
            if tangent is not None:
                operands = [
                    None if j == i or (everything and v.type.differentiable) else v
                    for j, v in enumerate(op.operands)
                ]
                found = rule.transpose(b, op, i, cotangent, operands)
                if found is not None:
                    self.add(tangent, found)

    def _structured(self, rules: StructuredOp, op: Operation) -> None:
        """Puts the cotangents of the cells that an operation touches where its body finds them."""
        self.b.at("transpose", op.location)
        for cell in op.effects:
            held = self._sums.pop(cell, None)
            if held is not None:
                self.b.accumulate(held, cell=self.cotangent_cell(cell))
            self._in_memory.add(cell)
        super()._structured(rules, op)

    def _effect(self, op: Operation) -> None:
        """As in a region, on the values that stand for the cotangents of cells."""
        ((cell, effect),) = op.effects.items()
        if cell in self._in_memory:
            super()._effect(op)
            return
        if effect in (Effect.WRITE, Effect.ACCUMULATE):
            held = self._sums.get(cell)
            if held is not None:
                self.add(op.operands[0], held)
            if effect == Effect.WRITE:
                self._forget(cell)
            return
        if effect == Effect.TAKE:
            self._forget(cell)
        cotangent = self._cotangent.get(op.results[0])
        if cotangent is not None:
            self.b.at("transpose", op.location)
            self._accumulate(cell, cotangent)

    def _accumulate(self, cell: Cell, cotangent: Value) -> None:
        held = self._sums.get(cell)
        self._sums[cell] = cotangent if held is None else self.b.add(held, cotangent)
        self._cells.add(cell)

    def _forget(self, cell: Cell) -> None:
        self._sums.pop(cell, None)
        self._cells.discard(cell)
