"""What operations with regions or a callee answer: all their rules stand in one file of `ops/`."""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from .core import NO_EFFECTS, Cell, Effect, Operation, Region
from .opdef import Effects, OpDef


class StructuredOp(OpDef):
    """An operation with regions or a callee. All of its rules stand in one file of `ops/`.

    The contexts are those of the passes: `ThreadContext`, `LinearizeContext`, `TransposeContext`,
    `BatchContext`.
    """

    def effects_of(self, op: Operation) -> Effects:
        effects: dict[Cell, Effect] = {}
        external = False
        for region in self.bodies(op):
            external = external or region.external
            for cell, effect in region.effects.items():
                effects[cell] = effects.get(cell, Effect(0)) | effect
        return effects or NO_EFFECTS, external

    def bodies(self, op: Operation) -> Iterable[Region]:
        """The regions that it runs: its own, or its callee's."""
        return op.regions

    def cost_of(self, op: Operation) -> int:
        inside = sum([o.opdef.cost_of(o) for region in self.bodies(op) for o in region.operations])
        return inside * self.steps_of(op)

    def steps_of(self, op: Operation) -> int:
        """How often its regions run, as far as that is known."""
        return 1

    @abstractmethod
    def thread(self, ctx: Any, op: Operation) -> None:
        """Turns the effects inside into operands and results."""

    @abstractmethod
    def activity(
        self, walk: Any, op: Operation, active: tuple[bool, ...], cells: frozenset[Cell]
    ) -> tuple[tuple[bool, ...], frozenset[Cell]]:
        """Which results may have tangents, and which touched cells a nonzero shadow afterwards, if the
        operands flagged in `active` have tangents and `cells` are the touched ones with a nonzero shadow
        before.

        `walk.region(region, active, cells)` answers the same for a region.
        """

    @abstractmethod
    def cotangent_activity(
        self,
        walk: Any,
        op: Operation,
        linear: tuple[bool, ...],
        given: tuple[bool, ...],
        cells: frozenset[Cell],
    ) -> tuple[tuple[bool, ...], frozenset[Cell]]:
        """The same for the transposed operation: which of the `linear` operands may get a cotangent, and
        which touched cells may have a nonzero one at its end, if the results flagged in `given` have one.

        `walk.region(region, linear, given, cells)` answers the same for a region.
        """

    @abstractmethod
    def demand(
        self, walk: Any, op: Operation, wanted: tuple[bool, ...], cells: frozenset[Cell]
    ) -> tuple[tuple[bool, ...], frozenset[Cell]]:
        """Of which operands somebody wants the tangent, and of which touched cells at its entry, if that of
        the results flagged in `wanted` is, and that of `cells` afterwards.

        `walk.region(region, wanted, cells)` answers the same for a region.
        """

    @abstractmethod
    def linearize(self, ctx: Any, op: Operation) -> None:
        """Emits the primal half with residuals and the linear half."""

    @abstractmethod
    def forward(self, ctx: Any, op: Operation) -> None:
        """Emits one operation that computes the results and their tangents side by side."""

    @abstractmethod
    def transpose(self, ctx: Any, op: Operation) -> None:
        """Emits the transposed operation; `op` has linear operands or effects."""

    @abstractmethod
    def batched(
        self, walk: Any, op: Operation, batched: tuple[bool, ...], cells: frozenset[Cell]
    ) -> tuple[tuple[bool, ...], frozenset[Cell]]:
        """Which results carry a batch axis, and which touched cells afterwards, if the operands flagged in
        `batched` do, and `cells` before.

        `walk.region(region, batched, cells)` answers the same for a region.
        """

    @abstractmethod
    def batch(self, ctx: Any, op: Operation) -> None:
        """Emits the operation with a leading batch axis on some operands and cells."""
