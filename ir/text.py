"""The printer. What it prints parses back to the same program and prints the same again; see docs/ir.md.

Names: a value keeps the name it wishes for where that is free in its function; else a number follows it.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from .attributes import data_text, has_implied_type, unwritten, value_text
from .core import Cell, Effect, Function, Module, Names, Operation, Region, Type, Value, register_printer
from .literals import string_text
from .location import Derived, Location, Source, Unknown

_BARE = re.compile(r"[\w./<>\-]+")
_WORD = re.compile(r"[A-Za-z_][\w.\-]*")
_UNFIT = re.compile(r"[^\w./<>\-]")
_EFFECTS = (
    (Effect.READ, "reads"),
    (Effect.WRITE, "writes"),
    (Effect.ACCUMULATE, "accumulates"),
    (Effect.TAKE, "takes"),
)


def to_text(program: Module | Function, locations: bool = True) -> str:
    """The text of a module, or of one function without the cells and functions that it uses.

    Programs that differ only in locations have one text with `locations=False`. Takes linear time.
    """
    return Printer(program, locations).text()


class Printer:
    """Prints one program; `line_of` tells the line of each operation and function, counted from 1."""

    def __init__(self, program: Module | Function, locations: bool = True) -> None:
        self.line_of: dict[Operation | Function, int] = {}
        self._locations = locations
        self._lines: list[str] = []
        self._shown_locations: dict[int, str] = {}
        self._module_names = Names()
        self._declared: set[str] = set()
        self._cells: dict[Cell, str] = {}
        self._start_function()
        if isinstance(program, Module):
            self._module(program)
        else:
            self._function(program)

    def text(self) -> str:
        """All lines."""
        return "\n".join(self._lines) + "\n" if self._lines else ""

    # ------------------------------------------------------------------------------------------ modules
    def _module(self, module: Module) -> None:
        mentioned = [
            c for f in module.functions.values() for v in f.attributes.values() for c in _cells_in(v)
        ]
        for cell in (*module.cells.values(), *mentioned):
            self._name_cell(cell)
        for cell in list(self._cells):
            self._lines.append(f"state {self._declaration(cell)}")
        for function in module.functions.values():
            if self._lines:
                self._lines.append("")
            self._function(function)

    def _name_cell(self, cell: Cell | None) -> None:
        """Names a cell after what it shadows, which is declared too where the module does not hold it."""
        unnamed: list[Cell] = []
        while cell is not None and cell not in self._cells:
            unnamed.append(cell)
            cell = cell.of
        for c in reversed(unnamed):
            name = self._module_names.fresh(c.name)
            self._declared.add(name)
            self._cells[c] = symbol("$", name)

    def _start_function(self) -> None:
        self._values: dict[Value, str] = {}
        self._value_names = Names()
        self._unnamed = 0
        self._cell_names = Names()
        self._elsewhere: dict[Cell, str] = {}

    def _function(self, function: Function) -> None:
        self._start_function()
        body = function.body
        parts = [f"func {symbol('@', function.name)}({self._binders(body.params)}) -> {_types(body.results)}"]
        parts += self._effects(body.effects)
        parts += self._enter(body)
        parts += self._attributes(function.attributes.items())
        parts.append(self._location(function.location)[1:])
        self._lines.append(" ".join(filter(None, [*parts, "{"])))
        self.line_of[function] = len(self._lines)
        self._body(body, "  ", "return")
        self._lines.append("}")

    def _effects(self, effects: Mapping[Cell, Effect]) -> Iterable[str]:
        for kind, word in _EFFECTS:
            cells = [self._name_of(cell) for cell, effect in effects.items() if effect & kind]
            if cells:
                yield f"{word} {', '.join(cells)}"

    # ------------------------------------------------------------------------------------------ regions
    def _enter(self, region: Region) -> list[str]:
        cells = sorted(region.locals, key=_shadows)  # what is shadowed is declared first
        for cell in cells:
            self._cells[cell] = symbol("$", self._fresh_cell_name(cell.name))
        declared = ", ".join([self._declaration(cell) for cell in cells])
        return [f"local {declared}"] if declared else []

    def _body(self, region: Region, indent: str, end: str) -> None:
        for op in region.operations:
            self._operation(op, indent)
        results = ", ".join([self._use(v) for v in region.results])
        self._lines.append(f"{indent}{end} {results}" if results else f"{indent}{end}")
        for cell in region.locals:
            self._cells.pop(cell, None)

    def _regions(self, op: Operation, line: str, indent: str) -> None:
        for region in op.regions:
            header = [f"({self._binders(region.params)})", *self._enter(region), "{"]
            self._lines.append(f"{line} {' '.join(header)}")
            self._body(region, indent + "  ", "yield")
            line = indent + "}"
        self._lines.append(line)

    # ------------------------------------------------------------------------------------------ operations
    def _operation(self, op: Operation, indent: str) -> None:
        self.line_of[op] = len(self._lines) + 1
        opdef, given = op.opdef, op.attributes
        binds = f"{self._binders(op.results)} = " if op.results else ""
        hidden: tuple[str, ...] = ()
        head = ""
        if opdef.symbols and all(isinstance(given.get(s), (Cell, Function)) for s in opdef.symbols):
            hidden = opdef.symbols
            head = " " + ", ".join([self._name_of(given[s]) for s in opdef.symbols])
        lengths = _lengths(op)
        if lengths is None:
            operands = ", ".join([self._values.get(v) or self._use(v) for v in op.operands])
            head += f"{', ' if head else ' '}{operands}" if operands else ""
        else:
            hidden += opdef.segments
            head += self._groups(op, lengths)
        attributes = self._operation_attributes(op, hidden) if given else ""
        place = self._location(op.location) if self._locations else ""
        line = f"{indent}{binds}{opdef.name}{head}{attributes}{place}"
        if op.regions:
            self._regions(op, line, indent)
        else:
            self._lines.append(line)

    def _groups(self, op: Operation, lengths: list[int]) -> str:
        text, start = "", 0
        for name, length in zip(op.opdef.segments, lengths, strict=True):
            if length:
                values = ", ".join([self._use(v) for v in op.operands[start : start + length]])
                text += f" {name}({values})"
            start += length
        return text

    def _operation_attributes(self, op: Operation, hidden: tuple[str, ...]) -> str:
        given = op.attributes
        types = [r.type for r in op.results]
        implied, usual = has_implied_type(op.opdef, types, given), unwritten(op.opdef, types)
        shown = []
        for name in sorted(given):
            value = given[name]
            if name in hidden or (name in usual and self._is_same(value, usual[name])):
                continue
            if implied and name == "value":
                shown.append(f"value = {data_text(value, types[0], self._name_of)}")
            else:
                shown.append(f"{_attribute_name(name)} = {value_text(value, self._name_of)}")
        return f" {{{', '.join(shown)}}}" if shown else ""

    def _is_same(self, value: Any, usual: Any) -> bool:
        """Whether two attributes have one text: `False == 0`, but a text tells them apart."""
        return value is usual or value_text(value, self._name_of) == value_text(usual, self._name_of)

    def _attributes(self, items: Iterable[tuple[str, Any]]) -> list[str]:
        shown = [f"{_attribute_name(k)} = {value_text(v, self._name_of)}" for k, v in sorted(items)]
        return [f"{{{', '.join(shown)}}}"] if shown else []

    def _location(self, location: Location) -> str:
        if not self._locations:
            return ""
        shown = self._shown_locations.get(id(location))
        if shown is None:
            place = location_text(location)
            shown = "" if place == "unknown" else f" loc({place})"
            self._shown_locations[id(location)] = shown
        return shown

    # ------------------------------------------------------------------------------------------ names
    def _binders(self, values: Iterable[Value]) -> str:
        return ", ".join([f"{self._bind(v)}: {_type(v.type)}" for v in values])

    def _bind(self, value: Value) -> str:
        wish = value.name
        if not wish:
            wish, self._unnamed = str(self._unnamed), self._unnamed + 1
        name = self._values[value] = f"%{self._value_names.fresh(_fit(wish))}"
        return name

    def _use(self, value: Value) -> str:
        """The name of a value; an undefined one, which `verify` complains about, gets a name too."""
        return self._values.get(value) or self._bind(value)

    def _name_of(self, named: Cell | Function) -> str:
        if isinstance(named, Function):
            return symbol("@", named.name)
        return self._cells.get(named) or self._cell_elsewhere(named)

    def _cell_elsewhere(self, cell: Cell) -> str:
        """A cell that is not declared here: what a local shadow shadows in another function."""
        if cell not in self._elsewhere:
            self._elsewhere[cell] = symbol("$", self._fresh_cell_name(cell.name))
        return self._elsewhere[cell]

    def _fresh_cell_name(self, wish: str) -> str:
        name = self._cell_names.fresh(wish)
        while name in self._declared:
            name = self._cell_names.fresh(wish)
        return name

    def _declaration(self, cell: Cell) -> str:
        text = f"{self._name_of(cell)}: {_type(cell.type)}"
        if not cell.role and cell.of is None:
            return text
        role = cell.role if _WORD.fullmatch(cell.role) else string_text(cell.role)
        return f"{text} {role} of {self._name_of(cell.of)}" if cell.of is not None else f"{text} {role}"


def symbol(sigil: str, name: str) -> str:
    """`$name` or `@name`, in quotes where the name has unusual characters."""
    return sigil + (name if _BARE.fullmatch(name) else string_text(name))


def location_text(location: Location) -> str:
    """What stands in `loc(…)`."""
    passes: list[str] = []
    while not isinstance(location, (Source, Unknown)):
        if isinstance(location, Derived):
            passes.append(location.by if _WORD.fullmatch(location.by) else string_text(location.by))
            location = location.base
        else:
            location = location.source
    place = "unknown"
    if isinstance(location, Source):
        place = f"{string_text(location.file)}:{location.line}:{location.column}"
    return f"{''.join([f'{by}(' for by in passes])}{place}{')' * len(passes)}"


@lru_cache(maxsize=4096)
def _fit(name: str) -> str:
    return _UNFIT.sub("_", name)


@lru_cache(maxsize=4096)
def _type(type: Type) -> str:
    return str(type)


def _types(values: tuple[Value, ...]) -> str:
    shown = ", ".join([_type(v.type) for v in values])
    return shown if len(values) == 1 else f"({shown})"


def _attribute_name(name: str) -> str:
    return name if _WORD.fullmatch(name) else string_text(name)


def _lengths(op: Operation) -> list[int] | None:
    """The lengths of the operand groups; None where there are none, or the attributes do not tell."""
    segments = op.opdef.segments
    if not segments:
        return None
    given: list[Any] = [op.attributes.get(name) for name in segments[:-1]]
    if any(type(n) is not int or n < 0 for n in given) or sum(given) > len(op.operands):
        return None
    return [*given, len(op.operands) - sum(given)]


def _shadows(cell: Cell) -> int:
    """How many shadows down it is to a cell that shadows nothing."""
    count = 0
    while cell.of is not None:
        cell, count = cell.of, count + 1
    return count


def _cells_in(value: Any) -> Iterable[Cell]:
    if isinstance(value, Cell):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _cells_in(item)


register_printer(to_text)
