"""`call`: a function of the module on operands. It holds the callee itself, so there is no look-up."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core import Cell, Function, Operation, Region, Type
from ..errors import IRTypeError
from ..opdef import register
from ..structured import StructuredOp
from .regions import Flags, check_attributes, check_regions, check_types, result_types


class Call(StructuredOp):
    """Operands are the callee's parameters, results its results, effects its effects."""

    name = "call"
    doc = "Calls a function of the module."
    symbols = ("callee",)

    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region]
    ) -> tuple[Type, ...]:
        check_regions(self.name, regions, 0)
        callee = attributes.get("callee")
        if not isinstance(callee, Function):
            raise IRTypeError(f"call takes a function as the attribute callee, given {callee!r}")
        check_attributes(self.name, attributes, {"callee": Function})
        check_types(f"call of @{callee.name}", types, [v.type for v in callee.params])
        return tuple(result_types(callee.body))

    def bodies(self, op: Operation) -> Iterable[Region]:
        return (op.attributes["callee"].body,)

    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        return machine.run(op.attributes["callee"].body, args)

    def thread(self, ctx: Any, op: Operation) -> None:
        callee = ctx.function(op.attributes["callee"])
        operands = [*ctx.now(callee.inputs), *ctx.operands(op)]
        results = ctx.emit(op, operands, {"callee": callee.function})
        n = len(op.results)
        ctx.hold(callee.outputs, results[n:])
        ctx.bind(op, results[:n])

    # -------------------------------------------------------------------------------------------- derivatives
    def activity(
        self, walk: Any, op: Operation, active: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.attributes["callee"].body, active, cells)

    def cotangent_activity(
        self, walk: Any, op: Operation, linear: Flags, given: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.attributes["callee"].body, linear, given, cells)

    def demand(
        self, walk: Any, op: Operation, wanted: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.attributes["callee"].body, wanted, cells)

    def linearize(self, ctx: Any, op: Operation) -> None:
        operands, n = ctx.operands(op), len(op.results)
        callee = ctx.function(op.attributes["callee"], ctx.flags(op), ctx.active(op))
        outer = [ctx.read(f) if isinstance(f, Cell) else operands[f] for f in callee.forwarded]
        results = ctx.primal(op, operands, {"callee": callee.fwd})
        saved = [results[i] for i in callee.saved]
        tangents = [t for t in ctx.tangents(op) if t is not None]
        found = ctx.linear(op, [*saved, *outer, *tangents], {"callee": callee.lin})
        ctx.finish(op, results[:n], dict(zip(callee.results, found, strict=True)), callee.exit)

    def forward(self, ctx: Any, op: Operation) -> None:
        n = len(op.results)
        twin = ctx.twin(op.attributes["callee"], ctx.flags(op), ctx.active(op))
        tangents = [t for t in ctx.tangents(op) if t is not None]
        found = ctx.primal(op, [*ctx.operands(op), *tangents], {"callee": twin.function})
        ctx.finish(op, found[:n], dict(zip(twin.results, found[n:], strict=True)), twin.exit)

    def transpose(self, ctx: Any, op: Operation) -> None:
        linear, given = ctx.linear_flags(op), ctx.given(op)
        callee = ctx.function(op.attributes["callee"], linear, given, ctx.active(op))
        known = [ctx.known(v) for v, flag in zip(op.operands, linear, strict=True) if not flag]
        cotangents = [c for c in ctx.cotangents(op) if c is not None]
        results = ctx.emit(op, [*known, *cotangents], {"callee": callee.function})
        for i, value in zip(callee.results, results, strict=True):
            ctx.add(op.operands[i], value)
        ctx.leave(op, callee.exit)

    # --------------------------------------------------------------------------------- batching, lowering
    def batched(
        self, walk: Any, op: Operation, batched: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.attributes["callee"].body, batched, cells)

    def batch(self, ctx: Any, op: Operation) -> None:
        flags, cells = ctx.flags(op), ctx.cells(op)
        yielded, exit = self.batched(ctx.walk, op, flags, cells)
        callee = ctx.function(op.attributes["callee"], flags, yielded, cells, exit)
        ctx.bind(op, ctx.emit(op, [ctx.value(v) for v in op.operands], {"callee": callee}), yielded)
        ctx.leave(op, exit)

    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        return hlo.call(op.attributes["callee"], operands)


register(Call())
