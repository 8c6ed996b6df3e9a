"""transpose: a linear program backwards, its effects reversed onto cotangent cells.

    @f.lin(known, tangents) -> tangents of results
    @f.lin.T(known, cotangents of results) -> cotangents of the linear parameters

The cell `$s.ct` holds at entry of @f.lin.T the cotangent of what `$s` holds at the exit of @f.lin, and at its
exit the cotangent of what `$s` held at the entry.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from stategrad.ir import (
    Builder,
    Cell,
    Function,
    Region,
    Value,
)
from stategrad.ir.record import record

from .activity import Cells, CotangentActivity, Flags, cotangents_asked
from .names import Fresh, with_own_locals
from .pullback import RegionTranspose, cotangent_name


@record
class Transposed:
    """The pullback of a linear function: it returns the cotangents of those parameters that `results` lists;
    the others get none. `exit` are the cells (of the linear function) whose cotangent may be nonzero at its
    end.
    """

    function: Function
    results: tuple[int, ...]
    exit: Cells
    cotangent_cells: Mapping[Cell, Cell]


def transpose_function(
    function: Function,
    linear: Sequence[bool] | None = None,
    given: Sequence[bool] | None = None,
    cells: Iterable[Cell] | None = None,
    names: Fresh | None = None,
) -> Transposed:
    """The pullback of a linear function: parameters are the known ones and then a cotangent for each flagged
    result.

    Args:
        linear: which parameters the function is linear in; by default all after the first `known` ones, as
            the function's attribute of that name says.
        given: which results have a cotangent; by default all.
        cells: the cells that have a cotangent on exit; by default all that the function touches.

    Raises:
        DerivativeError: the function is not linear.
    """
    known = function.attributes.get("known", 0)
    linear = linear or [i >= known for i in range(len(function.params))]
    given = given or [True] * len(function.results)
    active = frozenset(function.effects if cells is None else cells)
    run = Transposer(names or Fresh.beside(function, cells=active))
    return run.function(function, tuple(linear), tuple(given), active)


class Transposer:
    """One run: its cotangent cells are fresh, and each function is transposed once for each pattern."""

    def __init__(self, names: Fresh) -> None:
        self.names = names
        self.activity = CotangentActivity()
        self.cotangent_cells: dict[Cell, Cell] = {}
        self._functions: dict[tuple[Function, Flags, Flags, Cells], Transposed] = {}

    def cotangent_cell(self, cell: Cell) -> Cell:
        """The cell of the cotangent of a cell. Between a shadow and its cotangent only the role changes."""
        found = self.cotangent_cells.get(cell)
        if found is None:
            role = _OPPOSITE.get(cell.role, "cotangent")
            of = cell.of if cell.of is not None and cell.role in _OPPOSITE else cell
            name = self.names.cells.fresh(f"{of.name}.{_SUFFIX[role]}")
            found = self.cotangent_cells[cell] = Cell(name, cell.type, role, of)
        return found

    def region(self, region: Region, linear: Flags, given: Flags, cells: Cells) -> RegionTranspose:
        """The transposed region, still open; parameters are what is known and the given cotangents."""
        known = [
            None if flag else Value(v.type, v.name) for v, flag in zip(region.params, linear, strict=True)
        ]
        cotangents = [
            Value(v.type, cotangent_name(v)) if flag else None
            for v, flag in zip(region.results, given, strict=True)
        ]
        return self.region_into(Builder(), region, known, cotangents, cells)

    def region_into(
        self,
        b: Builder,
        region: Region,
        known: Sequence[Value | None],
        given: Sequence[Value | None],
        cells: Cells,
    ) -> RegionTranspose:
        """The transposed region, emitted at the place of `b`; parameters without a value in `known` are
        linear.
        """
        made = RegionTranspose(self, b, region, known, given, cells)
        made.run_all()
        return made

    def function(self, function: Function, linear: Flags, given: Flags, cells: Cells) -> Transposed:
        """The pullback of a function for this pattern."""
        asked = cotangents_asked(function.body, cells)
        key = function, linear, given, asked
        found = self._functions.get(key)
        if found is None:
            found = self._functions[key] = self._transpose(function, linear, given, asked)
        return replace(found, exit=found.exit | (cells - asked))

    def _transpose(self, function: Function, linear: Flags, given: Flags, cells: Cells) -> Transposed:
        inner = self.region(with_own_locals(function.body), linear, given, cells)
        back = [i for i, c in enumerate(inner.found) if c is not None]
        known = [v for v in inner.known_params if v is not None]
        region = inner.region(
            [*known, *(v for v in inner.given_results if v is not None)], [inner.found[i] for i in back]
        )
        name = self.names.functions.fresh(f"{function.name}.T")
        made = Function(name, region, {"known": len(known)}, function.location)
        return Transposed(made, tuple(back), inner.exit, self.cotangent_cells)


_OPPOSITE = {"tangent": "cotangent", "cotangent": "tangent"}
_SUFFIX = {"tangent": "t", "cotangent": "ct"}
