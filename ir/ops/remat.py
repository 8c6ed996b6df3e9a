"""`remat`: a region whose residuals are computed again for the derivative instead of being saved."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import Cell, Operation, Region, Type
from ..opdef import register
from ..structured import StructuredOp
from .regions import Flags, check_attributes, check_regions, check_types, param_types, result_types


class Remat(StructuredOp):
    """Means its region. Effects happen once, in the primal program; the derivative computes the region again
    from its operands and from what its cells held at its entry.
    """

    name = "remat"
    doc = "Runs the region; its derivative computes the region again instead of saving what it needs."

    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region]
    ) -> tuple[Type, ...]:
        check_attributes(self.name, attributes, {})
        check_regions(self.name, regions, 1)
        check_types("the parameters of the body of remat", param_types(regions[0]), types)
        return tuple(result_types(regions[0]))

    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        return machine.run(op.regions[0], args)

    def thread(self, ctx: Any, op: Operation) -> None:
        changed, fixed = ctx.changed(op), ctx.fixed(op)
        region = ctx.region(op.regions[0], trailing=(*changed, *fixed), last=changed)
        operands = [*ctx.operands(op), *ctx.now(changed), *ctx.now(fixed)]
        results = ctx.emit(op, operands, op.attributes, [region])
        n = len(op.results)
        ctx.hold(changed, results[n:])
        ctx.bind(op, results[:n])

    def demand(
        self, walk: Any, op: Operation, wanted: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.regions[0], wanted, cells)

    # -------------------------------------------------------------------------------------------- derivatives
    def activity(
        self, walk: Any, op: Operation, active: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.regions[0], active, cells)

    def cotangent_activity(
        self, walk: Any, op: Operation, linear: Flags, given: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.regions[0], linear, given, cells)

    def linearize(self, ctx: Any, op: Operation) -> None:
        """The primal operation stays. The linear one computes the region again, without its effects; what it
        needs of cells is read before the primal operation changes them.
        """
        operands = ctx.operands(op)
        child = ctx.child(op.regions[0], ctx.flags(op), ctx.active(op))
        again = ctx.recompute(child)
        outer = [*(operands[i] for i in again.params), *map(ctx.read, again.cells)]
        results = ctx.primal_copy(op)
        tangents = [t for t in ctx.tangents(op) if t is not None]
        found = ctx.linear(op, [*outer, *tangents], op.attributes, [again.region])
        live = [i for i, t in enumerate(child.result_tangents) if t is not None]
        ctx.finish(op, results, dict(zip(live, found, strict=True)), child.exit)

    def forward(self, ctx: Any, op: Operation) -> None:
        n = len(op.results)
        child = ctx.child(op.regions[0], ctx.flags(op), ctx.active(op))
        live = [i for i, t in enumerate(child.result_tangents) if t is not None]
        params = [*child.params, *(p for p in child.tangent_params if p is not None)]
        region = child.whole(params, [*child.results, *map(child.result_tangent, live)])
        tangents = [t for t in ctx.tangents(op) if t is not None]
        found = ctx.primal(op, [*ctx.operands(op), *tangents], op.attributes, [region])
        ctx.finish(op, found[:n], dict(zip(live, found[n:], strict=True)), child.exit)

    def transpose(self, ctx: Any, op: Operation) -> None:
        linear = ctx.linear_flags(op)
        child = ctx.child(op.regions[0], linear, ctx.given(op), ctx.active(op))
        back = [i for i, c in enumerate(child.found) if c is not None]
        params = [v for v in (*child.known_params, *child.given_results) if v is not None]
        region = child.region(params, [child.found[i] for i in back])
        known = [ctx.known(v) for v, flag in zip(op.operands, linear, strict=True) if not flag]
        cotangents = [c for c in ctx.cotangents(op) if c is not None]
        results = ctx.emit(op, [*known, *cotangents], op.attributes, [region])
        for i, value in zip(back, results, strict=True):
            ctx.add(op.operands[i], value)
        ctx.leave(op, child.exit)

    # --------------------------------------------------------------------------------- batching, lowering
    def batched(
        self, walk: Any, op: Operation, batched: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return walk.region(op.regions[0], batched, cells)

    def batch(self, ctx: Any, op: Operation) -> None:
        flags, cells = ctx.flags(op), ctx.cells(op)
        yielded, exit = self.batched(ctx.walk, op, flags, cells)
        region = ctx.region(op.regions[0], flags, yielded, cells, exit)
        ctx.bind(op, ctx.emit(op, [ctx.value(v) for v in op.operands], op.attributes, [region]), yielded)
        ctx.leave(op, exit)

    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        """In place, behind a barrier: without one, XLA would merge the recomputation with the original."""
        if operands:
            operands = hlo.op("optimization_barrier", operands, [v.type for v in op.operands])
        return hlo.inline(op.regions[0], operands)


register(Remat())
