"""The parser: from text to a module, checked as it is built. Whatever is wrong with a text is an `IRSyntaxError`."""

import difflib
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .attributes import has_implied_type
from .core import Cell, Effect, Function, Module, Operation, Region, Type, Value
from .errors import IRSyntaxError
from .grammar import Text, read_program
from .infer import infer_types, make_operation
from .literals import LiteralError, read_string
from .location import Location
from .opdef import ROWS, OpDef, lookup
from .read_attributes import read_data, read_type, read_value
from .syntax import (
    Attributes,
    Binder,
    CellNode,
    EffectNode,
    FunctionNode,
    OperationNode,
    RegionNode,
    Token,
)
from .text import symbol

_DEEPEST = 64
_EFFECTS = {
    "reads": Effect.READ,
    "writes": Effect.WRITE,
    "accumulates": Effect.ACCUMULATE,
    "takes": Effect.TAKE,
}


def parse(text: str, file: str = "<string>") -> Module:
    """The module that a text describes; `file` is named in errors.

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
            self.functions[name] = _FunctionReader(self).function(node, name)
        return Module(self.cells, self.functions)
