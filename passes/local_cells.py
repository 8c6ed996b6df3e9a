"""Makes cells local to a function. A callee cannot see them, so it gets what they hold as operands."""

from collections.abc import Iterable

from stategrad.ir import Builder, Cell, Function, Operation, Region

from .thread_state import Threader


def with_local_cells(function: Function, cells: Iterable[Cell]) -> Function:
    """The function, which is given up, with those of `cells` that it touches as its own: zero at its entry,
    gone at its end. Calls that touch them call twins, under the same names, that take and return what they
    hold; other effects stay effects.
    """
    body = function.body
    mine = [c for c in dict.fromkeys(cells) if c in body.effects]
    local = frozenset((*mine, *body.locals))
    if not local:
        return function
    made = _Own(local).region(body)
    whole = Region(made.params, made.operations, made.results, (*body.locals, *mine), made.location)
    return Function(function.name, whole, function.attributes, function.location)


class _Own:
    def __init__(self, cells: frozenset[Cell]) -> None:
        self._cells = cells
        self._threader = Threader(cells)

    def region(self, region: Region) -> Region:
        """The region without calls that touch the cells; the same object if there are none."""
        if not region.callees:
            return region
        operations: list[Operation] = []
        for op in region.operations:
            operations.extend(self._operation(op))
        if len(operations) == len(region.operations) and all(map(_same, operations, region.operations)):
            return region
        return Region(region.params, tuple(operations), region.results, region.locals, region.location)

    def _operation(self, op: Operation) -> list[Operation]:
        if self._cells.isdisjoint(op.effects):
            return [op]
        callee = op.attributes.get("callee")
        if isinstance(callee, Function):
            return self._call(op, callee)
        regions = tuple(map(self.region, op.regions))
        if all(map(_same, regions, op.regions)):
            return [op]
        return [Operation(op.opdef, op.operands, op.results, op.attributes, regions, op.location)]

    def _call(self, op: Operation, callee: Function) -> list[Operation]:
        twin = self._threader.function(callee)
        b = Builder(op.location)
        held = [b.read(cell=c) for c in twin.inputs]
        outputs = [b.param(c.type, c.name) for c in twin.outputs]
        attributes = {**op.attributes, "callee": twin.function}
        operands, results = (*held, *op.operands), (*op.results, *outputs)
        b.append(Operation(op.opdef, operands, results, attributes, (), op.location))
        for cell, value in zip(twin.outputs, outputs, strict=True):
            b.write(value, cell=cell)
        return b.operations


def _same(x: object, y: object) -> bool:
    return x is y
