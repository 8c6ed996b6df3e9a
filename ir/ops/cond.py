"""`cond`: one of several branches, chosen by a boolean or an integer."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..core import Cell, Operation, Region, Type, Value
from ..dtypes import BOOL, I32
from ..errors import IRTypeError
from ..opdef import register
from ..structured import StructuredOp
from .regions import (
    Flags,
    changed_cells,
    check_attributes,
    check_types,
    param_types,
    result_types,
    shared_slots,
    shown,
)

_I32 = Type(I32)


class Cond(StructuredOp):
    """Operands: the index, then what every branch gets. A `bool[]` index runs region 0 for false and 1 for
    true, an `i32[]` index is clamped to the regions there are.
    """

    name = "cond"
    doc = "Runs one of its regions, chosen by the first operand."

    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region]
    ) -> tuple[Type, ...]:
        check_attributes(self.name, attributes, {})
        if not types or types[0] not in (Type(BOOL), _I32):
            raise IRTypeError(f"cond takes an index of type bool[] or i32[] first, given {shown(types)}")
        if len(regions) < 1 or (types[0] == Type(BOOL) and len(regions) != 2):
            raise IRTypeError(
                f"cond on {types[0]} has {len(regions)} regions, expected 2 (bool[]) or any (i32[])"
            )
        results = result_types(regions[0])
        for i, region in enumerate(regions):
            check_types(f"the parameters of branch {i} of cond", param_types(region), types[1:])
            check_types(f"the results of branch {i} of cond, against branch 0", result_types(region), results)
        return tuple(results)

    # -------------------------------------------------------------------------------------------- meaning
    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        chosen = min(max(int(args[0]), 0), len(op.regions) - 1)
        return machine.run(op.regions[chosen], args[1:])

    def thread(self, ctx: Any, op: Operation) -> None:
        changed, fixed = ctx.changed(op), ctx.fixed(op)
        regions = [ctx.region(r, trailing=(*changed, *fixed), last=changed) for r in op.regions]
        operands = [*ctx.operands(op), *ctx.now(changed), *ctx.now(fixed)]
        results = ctx.emit(op, operands, op.attributes, regions)
        n = len(op.results)
        ctx.hold(changed, results[n:])
        ctx.bind(op, results[:n])

    # -------------------------------------------------------------------------------------------- activity
    def activity(
        self, walk: Any, op: Operation, active: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        return _union([walk.region(r, active[1:], cells) for r in op.regions])

    def cotangent_activity(
        self, walk: Any, op: Operation, linear: Flags, given: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        flags, exit = _union([walk.region(r, linear[1:], given, cells) for r in op.regions])
        return (False, *flags), exit

    def demand(
        self, walk: Any, op: Operation, wanted: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        flags, entry = _union([walk.region(r, wanted, cells) for r in op.regions])
        return (False, *flags), entry

    # -------------------------------------------------------------------------------------------- derivatives
    def linearize(self, ctx: Any, op: Operation) -> None:
        index, *args = ctx.operands(op)
        flags = ctx.flags(op)[1:]
        children = [ctx.child(r, flags, ctx.active(op)) for r in op.regions]
        forwarded = [_forwarded(ctx, child, args) for child in children]
        saved = [[v for v in c.residuals if v not in f] for c, f in zip(children, forwarded, strict=True)]
        types, saved_at = shared_slots([[v.type for v in vs] for vs in saved])
        outer, outer_at = shared_slots([list(f.values()) for f in forwarded])

        primal = []
        for child, mine, at in zip(children, saved, saved_at, strict=True):
            chosen = dict(zip(at, mine, strict=True))
            primal.append(
                child.primal_region([chosen.get(s) or child.b.filler(t) for s, t in enumerate(types)])
            )
        results = ctx.primal(op, [index, *args], op.attributes, primal)
        outer = [results[o] if isinstance(o, int) else o for o in outer]
        n = len(op.results)

        live = [i for i in range(n) if any(c.result_tangents[i] is not None for c in children)]
        linear = []
        for child, mine, at, theirs, there in zip(
            children, saved, saved_at, forwarded, outer_at, strict=True
        ):
            inner = {s: child.residual(v) for s, v in zip(at, mine, strict=True)}
            inner |= {len(types) + s: child.residual(v) for s, v in zip(there, theirs, strict=True)}
            wanted = [*types, *(v.type for v in outer)]
            known = [inner.get(s) or Value(t) for s, t in enumerate(wanted)]
            tangents = [p for p in child.tangent_params if p is not None]
            linear.append(child.linear_region([*known, *tangents], live))
        tangents = [t for t in ctx.tangents(op) if t is not None]
        found = ctx.linear(op, [index, *results[n:], *outer, *tangents], op.attributes, linear)
        exit = frozenset().union(*(c.exit for c in children))
        ctx.finish(op, results[:n], dict(zip(live, found, strict=True)), exit)

    def forward(self, ctx: Any, op: Operation) -> None:
        n = len(op.results)
        children = [ctx.child(r, ctx.flags(op)[1:], ctx.active(op)) for r in op.regions]
        live = [i for i in range(n) if any(c.result_tangents[i] is not None for c in children)]
        regions = [
            child.whole(
                [*child.params, *(p for p in child.tangent_params if p is not None)],
                [*child.results, *map(child.result_tangent, live)],
            )
            for child in children
        ]
        tangents = [t for t in ctx.tangents(op) if t is not None]
        found = ctx.primal(op, [*ctx.operands(op), *tangents], op.attributes, regions)
        exit = frozenset().union(*(c.exit for c in children))
        ctx.finish(op, found[:n], dict(zip(live, found[n:], strict=True)), exit)

    def transpose(self, ctx: Any, op: Operation) -> None:
        linear = ctx.linear_flags(op)[1:]
        args, given = op.operands[1:], ctx.given(op)
        children = [ctx.child(r, linear, given, ctx.active(op)) for r in op.regions]
        back = [i for i, v in enumerate(args) if linear[i] and any(c.found[i] is not None for c in children)]
        regions = [
            child.region(
                [v for v in (*child.known_params, *child.given_results) if v is not None],
                [child.found_or_zero(i) for i in back],
            )
            for child in children
        ]
        known = [ctx.known(v) for i, v in enumerate(args) if not linear[i]]
        cotangents = [c for c in ctx.cotangents(op) if c is not None]
        results = ctx.emit(op, [ctx.known(op.operands[0]), *known, *cotangents], op.attributes, regions)
        for i, value in zip(back, results, strict=True):
            ctx.add(args[i], value)
        ctx.leave(op, frozenset().union(*(c.exit for c in children)))

    # --------------------------------------------------------------------------------- batching, lowering
    def batched(
        self, walk: Any, op: Operation, batched: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        if batched[0]:
            return (True,) * len(op.results), cells | changed_cells(op)
        return _union([walk.region(r, batched[1:], cells) for r in op.regions])

    def batch(self, ctx: Any, op: Operation) -> None:
        """Where the index differs along the batch, all branches run and the results are selected."""
        index, *args = op.operands
        flags, cells = ctx.flags(op), ctx.cells(op)
        if flags[0] and not ctx.pure(op):
            ctx.threaded(op)
            return
        yielded, exit = self.batched(ctx.walk, op, flags, cells)
        operands = [ctx.value(v) for v in args]
        regions = [ctx.region(r, flags[1:], yielded, cells, exit) for r in op.regions]
        if flags[0]:
            results = ctx.choose(op, ctx.value(index), [ctx.inline(r, operands) for r in regions])
        else:
            results = ctx.emit(op, [ctx.value(index), *operands], op.attributes, regions)
        ctx.bind(op, results, yielded)
        ctx.leave(op, exit)

    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        index, *args = operands
        if op.operands[0].type != _I32:
            (index,) = hlo.op("convert", [index], [_I32])
        else:
            (index,) = hlo.op("maximum", [index, hlo.constant(0, _I32)], [_I32])
        branches = [lambda r=r: hlo.inline(r, args) for r in op.regions]
        return hlo.case(index, [r.type for r in op.results], branches)


register(Cond())


def _union(found: Sequence[tuple[Flags, frozenset[Cell]]]) -> tuple[Flags, frozenset[Cell]]:
    flags = tuple(any(column) for column in zip(*(f for f, _ in found), strict=True))
    return flags, frozenset().union(*(exit for _, exit in found))


def _forwarded(ctx: Any, child: Any, args: Sequence[Value]) -> dict[Value, Value | int]:
    """What a branch's linear half can get from outside: its parameters, cells as at its entry, and results of
    the primal operation, here by their index.
    """
    found: dict[Value, Value | int] = {}
    yielded = {v: i for i, v in enumerate(child.results)}
    for v in child.residuals:
        index, cell = child.param_index(v), child.entry_cell(v)
        if index is not None:
            found[v] = args[index]
        elif cell is not None:
            found[v] = ctx.read(cell)
        elif v in yielded:
            found[v] = yielded[v]
    return found
