"""batch: a program on many inputs at once. What depends on a batched input has a leading axis, and a cell
that holds such a value becomes a batched cell.

    @f(args) -> results
    @f.batch(args, some with the axis) -> results with the axis

The batched cell `$s.b` holds for every element what `$s` holds, along a leading axis: at entry of @f.batch
where that is given, and at its exit where the elements may differ. Everywhere else the value is in `$s`.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence

from stategrad.ir import Cell, Function, IRError, Module
from stategrad.ir.record import record

from .batch_context import BatchContext
from .batch_walk import BatchWalk, Cells, Flags
from .local_cells import with_local_cells
from .names import Fresh, cell_named, function_named, with_own_locals
from .pipeline import Pass, register_pass
from .spec import CellName, FunctionName
from .thread_state import Threader


@record
class Batched:
    """A function on many inputs at once. `results` are the results that carry the axis, `exit` the cells of
    which the value at the end does, in the batched cell that `cells` names.
    """

    function: Function
    results: Flags
    exit: Cells
    cells: Mapping[Cell, Cell]


def batch_function(
    function: Function,
    args: Sequence[bool],
    size: int,
    cells: Iterable[Cell] = (),
    names: Fresh | None = None,
    results: Sequence[bool] | None = None,
    final_cells: Iterable[Cell] = (),
    axis: Hashable = None,
) -> Batched:
    """The function for `size` elements at once.

    Args:
        args: the parameters that carry a leading axis.
        cells: the cells that carry it at entry: their values stand in batched cells.
        results: the results that shall carry it, by default all; those that depend on what carries it do
            anyway.
        final_cells: the cells that shall carry it at the end; those to which what differs between the
            elements is written do anyway.
        axis: the name of the axis; operations that work along it by this name work along this one.

    Raises:
        IRError: the flags do not match the parameters or results.
    """
    if len(args) != len(function.params):
        raise IRError(f"@{function.name} has {len(function.params)} parameters, given {len(args)} flags")
    wanted = (True,) * len(function.results) if results is None else tuple(results)
    if len(wanted) != len(function.results):
        raise IRError(f"@{function.name} has {len(function.results)} results, given {len(wanted)} flags")
    entry = frozenset(cells)
    run = Batcher(size, names or Fresh.beside(function, cells=entry), axis)
    differ, exit = run.walk.region(function.body, tuple(args), entry)
    wanted = tuple(a or b for a, b in zip(wanted, differ, strict=True))
    exit = exit.union(final_cells)
    made = run.function(function, tuple(args), wanted, entry, exit)
    shown = {c: run.cell(c) for c in sorted(entry | exit, key=lambda c: c.name)}
    between = [batched for cell, batched in run.cells.items() if cell not in shown]
    return Batched(with_local_cells(made, between), wanted, exit, shown)


class Batcher:
    """One run: its batched cells are fresh, and each function is batched once for each pattern."""

    def __init__(self, size: int, names: Fresh, axis: Hashable = None) -> None:
        self.size = size
        self.walk = BatchWalk((axis, size))
        self.threader = Threader(rename=names.functions.fresh)
        self.cells: dict[Cell, Cell] = {}
        self._names = names
        self._functions: dict[tuple[Function, Flags, Flags, Cells, Cells], Function] = {}

    def cell(self, cell: Cell) -> Cell:
        """The batched cell of a cell."""
        found = self.cells.get(cell)
        if found is None:
            name = self._names.cells.fresh(f"{cell.name}.b")
            found = self.cells[cell] = Cell(name, cell.type.batched(self.size), "batched", cell)
        return found

    def function(
        self, function: Function, batched: Flags, wanted: Flags, cells: Cells, exit: Cells
    ) -> Function:
        """The function for this pattern of parameters and results, and of cells at its entry and exit, that
        carry the axis.
        """
        key = function, batched, wanted, cells, exit
        found = self._functions.get(key)
        if found is None:
            body = BatchContext(self, with_own_locals(function.body), batched, cells).close(wanted, exit)
            name = self._names.functions.fresh(f"{function.name}.batch")
            found = self._functions[key] = Function(name, body, {}, function.location)
        return found


@register_pass
@record
class Batch(Pass):
    """Adds @f.batch: a function on arguments and cells that carry a leading batch axis."""

    name = "batch"

    of: FunctionName
    size: int
    args: tuple[int, ...] | None = None
    """The arguments that carry the axis; by default all."""
    cells: tuple[CellName, ...] = ()
    """The cells that carry it at entry."""
    results: tuple[int, ...] | None = None
    """The results that carry it, besides those that must; by default all."""
    final: tuple[CellName, ...] = ()
    """The cells that carry it at the end, besides those that must."""

    def run(self, module: Module) -> Module:
        function, find = function_named(module, self.of), cell_named(module)
        args = [self.args is None or i in self.args for i in range(len(function.params))]
        results = [self.results is None or i in self.results for i in range(len(function.results))]
        cells, final = list(map(find, self.cells)), list(map(find, self.final))
        made = batch_function(function, args, self.size, cells, Fresh.in_module(module), results, final)
        return Module.of(
            [*module.functions.values(), made.function], [*module.cells.values(), *made.cells.values()]
        )
