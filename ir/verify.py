"""The verifier: what must hold of every module between passes. Linear in the size of the program."""

from collections.abc import Iterable
from typing import Any

from .core import Cell, Function, Module, Operation, Region, Value
from .errors import IRTypeError, IRVerifyError
from .excerpt import excerpt
from .infer import result_types
from .location import Source
from .text import Printer, symbol


def verify(module: Module, locations: bool = False) -> None:
    """Checks a module.

    * Values are defined before they are used, in the region that uses them. A value, an operation, a region,
      a local cell stands in one place.
    * Types and attributes are what the rows of the operations give and accept.
    * Cells that operations touch are the module's own, or local to a region around.
    * Functions and cells stand under their names; a callee stands in the module, before its callers.
    * With `locations`, as for traced programs and what passes make of them: every operation leads to a line
      of the user's.

    Raises:
        IRVerifyError: with the guilty operation in an excerpt of the program's text.
    """
    _Verifier(module, locations).module()


class _Verifier:
    def __init__(self, module: Module, locations: bool) -> None:
        self._module = module
        self._locations = locations
        self._placed: set[Value | Operation | Region | Cell] = set()
        self._earlier: set[Function] = set()
        self._visible: set[Cell] = set(module.cells.values())
        self._place: Operation | Function | None = None

    def module(self) -> None:
        for name, cell in self._module.cells.items():
            if name != cell.name:
                raise self._error(f"the cell ${cell.name} stands under the name {name!r}")
        for name, function in self._module.functions.items():
            self._place = function
            if name != function.name:
                raise self._error(f"the function @{function.name} stands under the name {name!r}")
            self._region(function.body, function)
            self._earlier.add(function)

    def _region(self, region: Region, owner: Operation | Function) -> None:
        self._take_place(region, "a region")
        for cell in region.locals:
            self._take_place(cell, f"the local cell {symbol('$', cell.name)}")
            if cell in self._visible:
                raise self._error(f"the local cell {symbol('$', cell.name)} is a cell of the module too")
        self._visible.update(region.locals)
        values: set[Value] = set()
        self._define(region.params, values)
        for op in region.operations:
            self._place = op
            self._operation(op, values)
        self._place = owner
        self._check_defined(region.results, values, "the region's result")
        self._visible.difference_update(region.locals)

    def _operation(self, op: Operation, values: set[Value]) -> None:
        self._take_place(op, "an operation")
        if self._locations and not isinstance(op.location.source, Source):
            raise self._error(f"{op.name} has no location in the user's program")
        self._check_defined(op.operands, values, "the operand")
        self._check_attributes(op)
        for region in op.regions:
            self._region(region, op)
        self._place = op
        self._check_types(op)
        self._define(op.results, values)

    def _define(self, new: Iterable[Value], values: set[Value]) -> None:
        for value in new:
            if value in self._placed:
                raise self._error(f"the value {_shown(value)} stands in two places of the module")
            self._placed.add(value)
            values.add(value)

    def _take_place(self, thing: Value | Operation | Region | Cell, what: str) -> None:
        if thing in self._placed:
            raise self._error(f"{what} stands in two places of the module")
        self._placed.add(thing)

    def _check_defined(self, used: Iterable[Value], values: set[Value], what: str) -> None:
        for value in used:
            if value not in values:
                where = "outside this region" if value in self._placed else "nowhere before"
                raise self._error(f"{what} {_shown(value)} is defined {where}")

    def _check_types(self, op: Operation) -> None:
        declared = tuple([r.type for r in op.results])
        try:
            found = result_types(op.opdef, [v.type for v in op.operands], op.attributes, op.regions, declared)
        except IRTypeError as e:
            raise self._error(str(e)) from None
        if found != declared:
            raise self._error(f"{op.name} gives {_types(found)}, and its results are {_types(declared)}")

    def _check_attributes(self, op: Operation) -> None:
        calls = False
        for name, value in op.attributes.items():
            if type(value) is list:
                raise self._error(f"the attribute {name} is a list; sequences in attributes are tuples")
            if type(value) is tuple or type(value) is Function:
                for function in _functions_in(value):
                    self._check_callee(function)
                    calls = True
        # What regions touch is checked inside them, and what a callee touches where it is defined.
        if not op.regions and not calls:
            self._check_cells(op.effects)

    def _check_cells(self, cells: Iterable[Cell]) -> None:
        for cell in cells:
            if cell not in self._visible:
                raise self._error(f"the cell {symbol('$', cell.name)} is neither the module's nor local here")

    def _check_callee(self, function: Function) -> None:
        if function in self._earlier:
            return
        own = self._module.functions.get(function.name)
        why = "is not in the module"
        if own is not None:
            why = (
                "stands after its caller" if own is function else "is not the one of that name in the module"
            )
        raise self._error(f"the function {symbol('@', function.name)} {why}")

    def _error(self, message: str) -> IRVerifyError:
        printer = Printer(self._module)
        line = printer.line_of.get(self._place) if self._place is not None else None
        if line is None or self._place is None:
            return IRVerifyError(message)
        lines = printer.text().split("\n")
        return IRVerifyError(f"{message}\n{excerpt(lines, line, _column(lines[line - 1], self._place))}")


def _column(line: str, place: Operation | Function) -> int:
    """Where the name of an operation or function stands in its line, from 1."""
    if isinstance(place, Function):
        return line.index("@") + 1
    if place.results:
        return line.index(" = ") + 4
    return len(line) - len(line.lstrip()) + 1


def _shown(value: Value) -> str:
    return f"%{value.name}: {value.type}" if value.name else f"of type {value.type}"


def _types(types: Iterable[Any]) -> str:
    return f"({', '.join(map(str, types))})"


def _functions_in(value: Any) -> Iterable[Function]:
    if isinstance(value, Function):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _functions_in(item)
