"""linearize: a program into a primal half that keeps residuals and a linear half, effects on shadow cells and
all.

    @f(args) -> results
    @f.fwd(args) -> results, saved
    @f.lin(saved, forwarded, tangents of args) -> tangents of results

The shadow `$s.t` holds at entry of @f.lin the tangent of `$s` at the entry of @f, and at its exit that at the
exit.
"""

from collections.abc import Iterable, Mapping, Sequence

from stategrad.ir import (
    Cell,
    Function,
    IRTypeError,
    Region,
    Value,
)
from stategrad.ir.record import record

from .activity import Activity, Cells, Flags, differentiable
from .demand import EVERYTHING, Everything, demand_of
from .halves import LinearizeContext
from .names import Fresh, with_own_locals
from .recompute import Silencer
from .routing import RoutingBuilder
from .thread_state import Threader


@record
class Linearized:
    """A function in two halves.

    `fwd` returns the results and residuals. `lin` takes residuals (results `saved` of `fwd`), then what
    `forwarded` names (the parameter of that index, or the value of the cell before `fwd` runs), then the
    tangents of the active parameters; it returns the tangents of those results of the function that `results`
    lists.
    """

    fwd: Function
    lin: Function
    saved: tuple[int, ...]
    forwarded: tuple[int | Cell, ...]
    results: tuple[int, ...]
    exit: Cells
    shadows: Mapping[Cell, Cell]


def linearize_function(
    function: Function,
    args: Sequence[bool],
    cells: Iterable[Cell] = (),
    names: Fresh | None = None,
    results: Sequence[int] | None = None,
    final_cells: Iterable[Cell] = (),
) -> Linearized:
    """The two halves of a function, differentiated by the flagged arguments and by what `cells` hold on
    entry.

    Args:
        results: the results of which the tangents are wanted; by default those of all, and of what all cells
            hold at the end. Otherwise those of `final_cells` are, and the shadows of others mean nothing.

    Raises:
        IRTypeError: an argument or cell is not differentiable, or the flags do not match the parameters.
        DerivativeError: something on the way to what is wanted has no derivative.
    """
    active = check_active(function, args, cells)
    demand = EVERYTHING if results is None else demand_of(function.body, results, final_cells)
    run = Linearizer(names or Fresh.beside(function, cells=active), demand)
    return run.function(function, tuple(args), active)


def check_active(function: Function, args: Sequence[bool], cells: Iterable[Cell]) -> Cells:
    """The cells as a set.

    Raises:
        IRTypeError: an argument or cell is not differentiable, or the flags do not match the parameters.
    """
    if len(args) != len(function.params):
        raise IRTypeError(f"@{function.name} has {len(function.params)} parameters, given {len(args)} flags")
    for i, (v, flag) in enumerate(zip(function.params, args, strict=True)):
        if flag and not v.type.differentiable:
            raise IRTypeError(f"argument {i} (%{v.name}: {v.type}) of @{function.name} has no derivative")
    wanted = frozenset(cells)
    for cell in wanted:
        if not differentiable(cell):
            raise IRTypeError(f"${cell.name}: {cell.type} has no derivative")
    return wanted


class Linearizer:
    """One run: its shadow cells are fresh, and a function is linearized once for each pattern of activity."""

    def __init__(self, names: Fresh, demand: Everything = EVERYTHING) -> None:
        self.names = names
        self.demand = demand
        self.activity = Activity(demand)
        self.threader = Threader(rename=names.functions.fresh)
        self.silencer = Silencer(names.functions.fresh)
        self.shadows: dict[Cell, Cell] = {}
        self._functions: dict[tuple[Function, Flags, Cells], Linearized] = {}

    def shadow(self, cell: Cell) -> Cell:
        """The cell of the tangent of a cell."""
        found = self.shadows.get(cell)
        if found is None:
            name = self.names.cells.fresh(f"{cell.name}.t")
            found = self.shadows[cell] = Cell(name, cell.type, "tangent", cell)
        return found

    def region(self, region: Region, active: Flags, cells: Cells) -> LinearizeContext:
        """The two halves of a region, still open."""
        return self.region_into(RoutingBuilder(), region, active, cells)

    def region_into(self, b: RoutingBuilder, region: Region, active: Flags, cells: Cells) -> LinearizeContext:
        """The two halves of a region, as `b` builds them, still open."""
        made = LinearizeContext(self, region, active, cells, b)
        made.run_all(region)
        return made

    def body(self, function: Function) -> Region:
        """The body of a function, with local cells of its own."""
        found = with_own_locals(function.body)
        self.demand.same_of(function.body, found)
        return found

    def function(self, function: Function, active: Flags, cells: Cells) -> Linearized:
        """The two halves of a function for this pattern of activity."""
        key = function, active, cells
        found = self._functions.get(key)
        if found is None:
            found = self._functions[key] = self._linearize(function, active, cells)
        return found

    def _linearize(self, function: Function, active: Flags, cells: Cells) -> Linearized:
        halves = self.region(self.body(function), active, cells)
        results = [i for i, t in enumerate(halves.result_tangents) if t is not None]
        forwarded: dict[Value, int | Cell] = {}
        saved: dict[Value, int] = {}
        places = {v: i for i, v in enumerate(halves.results)}
        new: list[Value] = []
        for v in halves.residuals:
            index, cell = halves.param_index(v), halves.entry_cell(v)
            if index is not None:
                forwarded[v] = index
            elif cell is not None:
                forwarded[v] = cell
            else:
                if v not in places:
                    places[v] = len(function.results) + len(new)
                    new.append(v)
                saved[v] = places[v]
        known = [halves.residual(v) for v in (*saved, *forwarded)]
        tangents = [p for p in halves.tangent_params if p is not None]
        lin = halves.linear_region([*known, *tangents], results)
        fresh, facts = self.names.functions.fresh, {"known": len(known)}
        return Linearized(
            Function(fresh(f"{function.name}.fwd"), halves.primal_region(new), {}, function.location),
            Function(fresh(f"{function.name}.lin"), lin, facts, function.location),
            tuple(saved.values()),
            tuple(forwarded.values()),
            tuple(results),
            halves.exit,
            self.shadows,
        )
