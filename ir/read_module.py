"""From records to a checked module: names, types, scopes and effects."""

from collections import ChainMap
from collections.abc import MutableMapping, Sequence

from .core import Cell, Effect, Function, Module, Operation, Region, Type, Value
from .errors import IRTypeError
from .grammar import Text, read_program
from .infer import make_operation
from .literals import LiteralError, read_string
from .location import Location
from .read_attributes import read_type, word_or_string
from .read_operations import (
    check_types,
    operand_tokens,
    read_attributes,
    read_opdef,
    read_operation_attributes,
    similar,
)
from .syntax import Binder, CellNode, FunctionNode, OperationNode, RegionNode, Token
from .text import symbol

_DEEPEST = 64
_EFFECTS = {
    "reads": Effect.READ,
    "writes": Effect.WRITE,
    "accumulates": Effect.ACCUMULATE,
    "takes": Effect.TAKE,
}


def read_module(text: str, file: str) -> Module:
    """The module that a text describes; see `parse`.

    Raises:
        IRSyntaxError: the text is not a well-formed and well-typed program.
    """
    source = Text(text, file)
    program = read_program(source)
    return _ModuleReader(source).module(program.cells, program.functions)


class _ModuleReader:
    """Cells and functions read so far."""

    def __init__(self, source: Text) -> None:
        self.error = source.error
        self.cells: dict[str, Cell] = {}
        self.functions: dict[str, Function] = {}

    def module(self, cells: Sequence[CellNode], functions: Sequence[FunctionNode]) -> Module:
        for node in cells:
            name = self.name(node.name)
            if name in self.cells:
                raise self.error(node.name, f"there are two cells {node.name}")
            self.cells[name] = self.declared(node, name, self.shadowed(node))
        for node in functions:
            name = self.name(node.name)
            if name in self.functions:
                raise self.error(node.name, f"there are two functions {node.name}")
            self.functions[name] = _FunctionReader(self).read(node, name)
        return Module(self.cells, self.functions)

    def name(self, token: Token) -> str:
        """The name that a token with a sigil stands for."""
        text = str(token)
        if text[1] != '"':
            return text[1:]
        try:
            return read_string(text[1:])
        except LiteralError as e:
            raise self.error(token, str(e)) from None

    def declared(self, node: CellNode, name: str, of: Cell | None) -> Cell:
        role = "" if node.role is None else word_or_string(node.role, self)
        return Cell(name, read_type(node.type, self), role, of)

    def shadowed(self, node: CellNode) -> Cell | None:
        return None if node.of is None else self.cell(node.of)

    def cell(self, token: Token) -> Cell:
        found = self.cells.get(self.name(token))
        if found is None:
            raise self.error(token, f"there is no cell {token} here{similar(token, self.cells, '$')}")
        return found

    def function(self, token: Token) -> Function:
        found = self.functions.get(self.name(token))
        if found is None:
            hint = similar(token, self.functions, "@")
            raise self.error(
                token, f"there is no function {token} above{hint}; functions stand before their callers"
            )
        return found


class _FunctionReader:
    """One function. Names of values and local cells are unique in all of it, not only in a region."""

    def __init__(self, module: _ModuleReader) -> None:
        self.error = module.error
        self.name = module.name
        self._module = module
        self._cells: MutableMapping[str, Cell] = module.cells
        self._bound: dict[str, Token] = {}
        self._local_names: set[str] = set()
        self._elsewhere: dict[str, Cell] = {}

    def read(self, node: FunctionNode, name: str) -> Function:
        body = self._region(node.body, node.location, 0)
        declared = [read_type(t, self) for t in node.types]
        if declared != [v.type for v in body.results]:
            given = ", ".join(str(v.type) for v in body.results)
            place = node.types[0] if node.types else node.name
            raise self.error(place, f"the function returns ({given}), not ({', '.join(map(str, declared))})")
        self._check_effects(node, body)
        return Function(name, body, read_attributes(node.attributes, self), node.location)

    def _check_effects(self, node: FunctionNode, body: Region) -> None:
        declared: dict[Cell, Effect] = {}
        for effect in node.effects:
            kind = _EFFECTS[str(effect.kind)]
            for token in effect.cells:
                cell = self.cell(token)
                declared[cell] = declared.get(cell, Effect(0)) | kind
                if not body.effects.get(cell, Effect(0)) & kind:
                    raise self.error(token, f"nothing in the body {effect.kind} {token}")
        for cell, effects in body.effects.items():
            for word, kind in _EFFECTS.items():
                if effects & kind & ~declared.get(cell, Effect(0)):
                    shown = symbol("$", cell.name)
                    raise self.error(
                        node.name, f"the body {word} {shown}: write `{word} {shown}` in the signature"
                    )

    # ------------------------------------------------------------------------------------------ regions
    def _region(self, node: RegionNode, location: Location, depth: int) -> Region:
        outer = self._cells
        if node.locals:
            self._cells = ChainMap({}, outer)
        cells = tuple([self._local(n) for n in node.locals])
        values: dict[str, Value] = {}
        params = tuple([self._bind(b, read_type(b.type, self), values) for b in node.params])
        operations = tuple([self._operation(n, values, depth) for n in node.operations])
        results = tuple([self._use(t, values) for t in node.results])
        self._cells = outer
        return Region(params, operations, results, cells, location)

    def _local(self, node: CellNode) -> Cell:
        name = self.name(node.name)
        if name in self._local_names or name in self._module.cells or name in self._elsewhere:
            raise self.error(node.name, f"there are two cells {node.name}")
        self._local_names.add(name)
        cell = self._module.declared(node, name, self._shadowed(node))
        self._cells[name] = cell
        return cell

    def _shadowed(self, node: CellNode) -> Cell | None:
        """What a local cell shadows: a cell in sight, or a local of another function, known by name only."""
        if node.of is None:
            return None
        name = self.name(node.of)
        if name in self._cells:
            return self._cells[name]
        if name in self._local_names:
            raise self.error(node.of, f"{node.of} is a local cell of another region")
        return self._elsewhere.setdefault(name, Cell(name, read_type(node.type, self)))

    def _bind(self, binder: Binder, type: Type, values: dict[str, Value]) -> Value:
        name = self.name(binder.name)
        if name in self._bound:
            line = self._bound[name].line
            raise self.error(
                binder.name, f"{binder.name} is already bound on line {line}: names are unique in a function"
            )
        self._bound[name] = binder.name
        value = values[name] = Value(type, name)
        return value

    def _use(self, token: Token, values: dict[str, Value]) -> Value:
        name = self.name(token)
        found = values.get(name)
        if found is not None:
            return found
        if name in self._bound:
            why = "a region sees only its own parameters and values; hand it in as an operand"
            raise self.error(token, f"{token} is not visible here: {why}")
        raise self.error(token, f"there is no value {token}{similar(token, values, '%')}")

    def cell(self, token: Token) -> Cell:
        """The cell that a token names."""
        found = self._cells.get(self.name(token))
        if found is None:
            raise self.error(token, f"there is no cell {token} here{similar(token, self._cells, '$')}")
        return found

    def function(self, token: Token) -> Function:
        """The function that a token names."""
        return self._module.function(token)

    # ------------------------------------------------------------------------------------------ operations
    def _operation(self, node: OperationNode, values: dict[str, Value], depth: int) -> Operation:
        if node.regions and depth >= _DEEPEST:
            raise self.error(node.name, f"regions nest more than {_DEEPEST} deep")
        opdef = read_opdef(node.name, self)
        types = tuple([read_type(b.type, self) for b in node.results])
        operands = tuple([self._use(t, values) for t in operand_tokens(node)])
        attributes = read_operation_attributes(node, opdef, types, self)
        regions = tuple([self._region(r, node.location, depth + 1) for r in node.regions])
        check_types(node, opdef, [v.type for v in operands], attributes, regions, types, self)
        results = tuple([self._bind(b, t, values) for b, t in zip(node.results, types, strict=True)])
        try:
            return make_operation(opdef, operands, results, attributes, regions, node.location)
        except IRTypeError as e:
            raise self.error(node.name, str(e)) from None
