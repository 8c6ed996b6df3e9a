"""From characters to records: the Lark grammar, built when first needed, and errors that show the place."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import lark

from .errors import IRSyntaxError
from .excerpt import excerpt
from .literals import LiteralError, read_int, read_string
from .location import UNKNOWN, Derived, Location, Source, Unknown
from .syntax import (
    AttributeNode,
    Attributes,
    Binder,
    Binders,
    CellNode,
    ComplexNode,
    EffectNode,
    End,
    FunctionNode,
    GroupNode,
    ListNode,
    Locals,
    Operands,
    OperationNode,
    Program,
    RegionNode,
    Token,
    TypedNode,
    Types,
)

_DEEPEST = 200
"""How deep lists and locations may nest."""


class Text:
    """A text being read, for errors that show the place."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file

    def error(self, place: Any, message: str) -> IRSyntaxError:
        """The error of that message at a token, or at a (line, column)."""
        line, column = place if isinstance(place, tuple) else (place.line, place.column)
        file = "" if self.file == "<string>" else self.file
        return IRSyntaxError(message, line, column, excerpt(self.text.split("\n"), line, column, file))


class _Complaint(Exception):
    """What a callback of the grammar found wrong at a token."""

    def __init__(self, token: Token, message: str) -> None:
        super().__init__(message)
        self.token = token


class _Located(NamedTuple):
    location: Location
    depth: int


def grammar_text() -> str:
    """The grammar in Lark's notation."""
    return (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")


@cache
def _parser() -> lark.Lark:
    return lark.Lark(
        grammar_text(),
        parser="lalr",
        lexer="contextual",
        transformer=_Records(),
        maybe_placeholders=False,
        propagate_positions=False,
    )


def read_program(text: Text) -> Program:
    """The records of a text.

    Raises:
        IRSyntaxError: the text does not follow the grammar.
    """
    try:
        return cast("Program", _parser().parse(text.text + "\n"))
    except _Complaint as e:
        raise text.error(e.token, str(e)) from None
    except lark.UnexpectedCharacters as e:
        raise text.error((e.line, e.column), f"unexpected {e.char!r}{_expected(e.allowed)}") from None
    except lark.UnexpectedToken as e:
        raise text.error(*_unexpected(text, e)) from None


def _unexpected(text: Text, e: lark.UnexpectedToken) -> tuple[tuple[int, int], str]:
    found = str(e.token)
    if e.token.type == "$END" or (e.token.end_pos is not None and e.token.end_pos > len(text.text)):
        lines = text.text.split("\n")
        return (len(lines), len(lines[-1]) + 1), f"unexpected end of the text{_expected(e.accepts)}"
    shown = "end of line" if found.startswith("\n") else repr(found[:40])
    return (e.line, e.column), f"unexpected {shown}{_expected(e.accepts)}"


_SHOWN = {
    "VALUE": "a value as in %x",
    "CELL": "a cell as in $s",
    "FUNC": "a function as in @f",
    "TYPE": "a type as in f32[3]",
    "NAME": "a name",
    "STRING": "a string",
    "INT": "an integer",
    "FLOAT": "a number",
    "BLOB": 'base64"…"',
    "OPAQUE": 'opaque"…"',
    "PLACE": 'a place as in "train.py":3:4',
    "EFFECT": "an effect (reads, writes, accumulates, takes)",
    "_NL": "end of line",
    "$END": "end of the text",
}


def _expected(terminals: Any) -> str:
    patterns = {t.name: t.pattern.value for t in _parser().terminals}
    names = sorted(_SHOWN.get(t) or f"{patterns.get(t, t)!r}" for t in terminals or ())
    return f"; expected {' or '.join(names)}" if names else ""


_PART = {
    Attributes: "attributes",
    Binders: "params",
    Derived: "location",
    End: "results",
    Locals: "locals",
    Operands: "operands",
    Source: "location",
    Types: "types",
    Unknown: "location",
}


class _Records(lark.Transformer):
    """Callbacks of the grammar's rules; each gets the records and tokens of its parts."""

    def start(self, parts: list[Any]) -> Program:
        cells = [p for p in parts if type(p) is CellNode]
        return Program(cells, [p for p in parts if type(p) is FunctionNode])

    def state(self, parts: list[Any]) -> CellNode:
        return parts[0]

    def cell(self, parts: list[Any]) -> CellNode:
        return CellNode(*parts)

    def function(self, parts: list[Any]) -> FunctionNode:
        region = RegionNode(Binders(p for p in parts if type(p) is Binder))
        node = FunctionNode(parts[0], region, Types())
        for part in parts[1 + len(region.params) :]:
            kind = type(part)
            if kind is OperationNode:
                region.operations.append(part)
            elif kind is EffectNode:
                node.effects.append(part)
            else:
                setattr(region if kind in (Locals, End) else node, _PART[kind], part)
        return node

    def param(self, parts: list[Any]) -> Binder:
        return Binder(*parts)

    def result_types(self, parts: list[Any]) -> Types:
        return Types(parts)

    def effect(self, parts: list[Any]) -> EffectNode:
        return EffectNode(parts[0], tuple(parts[1:]))

    def local_cells(self, parts: list[Any]) -> Locals:
        return Locals(parts)

    def operation(self, parts: list[Any]) -> OperationNode:
        rest = iter(parts)
        name = next(rest)
        node = OperationNode(next(rest), name) if type(name) is Binders else OperationNode(name)
        for part in rest:
            kind = type(part)
            if kind is GroupNode:
                node.groups.append(part)
            elif kind is RegionNode:
                node.regions.append(part)
            else:
                setattr(node, _PART[kind], part)
        return node

    def results(self, parts: list[Any]) -> Binders:
        return Binders(parts)

    def operands(self, parts: list[Any]) -> Operands:
        return Operands(parts)

    def group(self, parts: list[Any]) -> GroupNode:
        return GroupNode(parts[0], tuple(parts[1:]))

    def region(self, parts: list[Any]) -> RegionNode:
        node = RegionNode(parts[0])
        for part in parts[1:]:
            if type(part) is OperationNode:
                node.operations.append(part)
            else:
                setattr(node, _PART[type(part)], part)
        return node

    region_params = results

    def end(self, parts: list[Any]) -> End:
        return End(parts)

    def attributes(self, parts: list[Any]) -> Attributes:
        return Attributes(parts)

    def attribute(self, parts: list[Any]) -> AttributeNode:
        return AttributeNode(*parts)

    def sequence(self, parts: list[Any]) -> ListNode:
        return ListNode(tuple(parts), 1 + max((p.depth for p in parts if type(p) is ListNode), default=0))

    def complex_number(self, parts: list[Any]) -> ComplexNode:
        return ComplexNode(*parts)

    def typed_array(self, parts: list[Any]) -> TypedNode:
        return TypedNode(*parts)

    def location(self, parts: list[Any]) -> Location:
        return parts[0].location

    def source(self, parts: list[Any]) -> _Located:
        file, line, column = str(parts[0]).rsplit(":", 2)
        read = _checked(lambda _: (read_string(file), read_int(line), read_int(column)), parts[0])
        return _Located(Source(*read), 1)

    def derived(self, parts: list[Any]) -> _Located:
        by, base = parts
        if base.depth >= _DEEPEST:
            raise _Complaint(by, f"a location of more than {_DEEPEST} passes")
        return _Located(
            Derived(_string(by) if by.type == "STRING" else str(by), base.location), base.depth + 1
        )

    def unknown(self, parts: list[Any]) -> _Located:
        if parts[0] != "unknown":
            raise _Complaint(
                parts[0],
                f'expected unknown, "file":line:column, or a pass as in linearize(…), not {parts[0]}',
            )
        return _Located(UNKNOWN, 1)


def _string(token: Any) -> str:
    return _checked(read_string, token)


def _checked(read: Callable[[str], Any], token: Any) -> Any:
    try:
        return read(str(token))
    except LiteralError as e:
        raise _Complaint(token, str(e)) from None
