"""Invariant reads: what a loop only reads is read before it."""

from collections.abc import Sequence

from stategrad.ir import Cell, Derived, Effect, Function, Operation, Region, Value
from stategrad.ir.record import record

from .pipeline import register_pass
from .ports import ports, shares_consts, with_consts
from .rebuild import RewritePass, Rewriter, Scope, with_body

_BY = "hoist-reads"
_NONE: frozenset[Cell] = frozenset()


@register_pass
@record
class HoistReads(RewritePass):
    """Moves reads of cells that a loop never changes to before the loop; the values become const operands.

    Branches and remat regions inside the loop hand them down the same way. Called functions keep their reads.
    """

    name = "hoist-reads"

    def rewriter(self) -> Rewriter:
        return _HoistReads()


def hoist_reads_function(function: Function) -> Function:
    """`function` and what it calls, invariant reads before their loops; the same object if there are none."""
    return _HoistReads().function(function)


class _HoistReads(Rewriter):
    def region(self, region: Region) -> Region:
        return self._region(region, _NONE)

    def _region(self, region: Region, steady: frozenset[Cell]) -> Region:
        """Rebuilds a region inside a loop that never changes the cells `steady`."""
        if region.straight:
            return region
        scope = Scope(region)
        for op in region.operations:
            found = ports(op)
            inner = _only_read(op) if found is not None and found.repeats else steady
            new = self.renew(scope, op, [self._region(r, inner) for r in op.regions])
            scope.append(new if found is None else _hoist(scope, new, inner))
        return scope.finish()


def _only_read(op: Operation) -> frozenset[Cell]:
    return frozenset(cell for cell, effect in op.effects.items() if effect == Effect.READ)


def _hoist(scope: Scope, op: Operation, steady: frozenset[Cell]) -> Operation:
    """Reads the steady cells before `op`, which then takes them as operands."""
    reads = [{c: read for c, read in _reads(r).items() if c in steady} for r in op.regions]
    if not any(reads):
        return op
    if shares_consts(op):
        reads = [{c: read for found in reads for c, read in found.items()}] * len(reads)
    before: dict[Cell, Value] = {}
    for cell, read in (item for found in reads for item in found.items()):
        if cell not in before:
            before[cell] = _read_before(scope, read)
    regions = [_with_params(r, list(found)) for r, found in zip(op.regions, reads, strict=True)]
    return with_consts(op, op.operands, regions, [[before[c] for c in found] for found in reads])


def _reads(region: Region) -> dict[Cell, Operation]:
    """The first read of each cell among the operations of a region itself; not of its own cells."""
    found: dict[Cell, Operation] = {}
    for op in region.operations:
        if op.name == "read" and op.attributes["cell"] in region.effects:
            found.setdefault(op.attributes["cell"], op)
    return found


def _read_before(scope: Scope, read: Operation) -> Value:
    moved_before = isinstance(read.location, Derived) and read.location.by == _BY
    location = read.location if moved_before else Derived(_BY, read.location)
    return scope.emit(read.opdef, (), read.attributes, names=[read.result.name], location=location)[0]


def _with_params(region: Region, cells: Sequence[Cell]) -> Region:
    """`region` with a parameter for each cell in the place of its reads."""
    params = {cell: Value(cell.type, cell.name) for cell in cells}
    scope = Scope(region)
    for op in region.operations:
        if op.name == "read" and op.attributes["cell"] in params:
            scope.replace(op.results, (params[op.attributes["cell"]],))
        else:
            scope.append(scope.moved(op))
    made = scope.finish()
    return with_body(made, made.operations, params=(*made.params, *params.values()))
