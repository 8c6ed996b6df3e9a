"""What the grammar makes of a text before names are looked up: plain records that keep positions."""

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .location import UNKNOWN, Location


class Token(Protocol):
    """A piece of the text; `str(token)` is the piece, line and column count from 1."""

    type: str
    line: int
    column: int


class Binder(NamedTuple):
    """`%x: f32[3]`"""

    name: Token
    type: Token


class CellNode(NamedTuple):
    """`$w.t: f32[3] tangent of $w`"""

    name: Token
    type: Token
    role: Token | None = None
    of: Token | None = None


class ListNode(NamedTuple):
    """`[1, [2, 3]]`; `depth` is 2 there."""

    items: tuple["ValueNode", ...]
    depth: int


class ComplexNode(NamedTuple):
    """`(1.0, -2.0)`"""

    real: Token
    imaginary: Token


class TypedNode(NamedTuple):
    """`f32[2] [1.0, 2.0]`"""

    type: Token
    data: "ValueNode"


ValueNode = Token | ListNode | ComplexNode | TypedNode


class AttributeNode(NamedTuple):
    """`axes = [0, 1]`"""

    name: Token
    value: ValueNode


class Attributes(tuple[AttributeNode, ...]):
    """`{axes = [0], keep = true}`"""


class Binders(tuple[Binder, ...]):
    """What an operation or a region header binds."""


class Locals(tuple[CellNode, ...]):
    """`local $a: f32[], $b: f32[]`"""


class Operands(tuple[Token, ...]):
    """Values and symbols, by position."""


class Types(tuple[Token, ...]):
    """`f32[]` or `(f32[], i32[])`"""


class EffectNode(NamedTuple):
    """`reads $a, $b`"""

    kind: Token
    cells: tuple[Token, ...]


class GroupNode(NamedTuple):
    """`carry(%a, %b)`"""

    name: Token
    values: tuple[Token, ...]


class End(tuple[Token, ...]):
    """`yield %a` or `return %a`: the values."""


@dataclass(slots=True)
class RegionNode:
    """`(%a: f32[]) local $c: f32[] { … }`"""

    params: Binders
    operations: list["OperationNode"] = field(default_factory=list)
    results: End = field(default_factory=End)
    locals: Locals = field(default_factory=Locals)


@dataclass(slots=True)
class OperationNode:
    """One line, and the regions that it opens."""

    name: Token
    results: Binders = field(default_factory=Binders)
    operands: Operands = field(default_factory=Operands)
    groups: list[GroupNode] = field(default_factory=list)
    attributes: Attributes = field(default_factory=Attributes)
    location: Location = UNKNOWN
    regions: list[RegionNode] = field(default_factory=list)


@dataclass(slots=True)
class FunctionNode:
    """`func @f(%x: f32[]) -> f32[] reads $a { … }`"""

    name: Token
    body: RegionNode
    types: Types
    effects: list[EffectNode] = field(default_factory=list)
    attributes: Attributes = field(default_factory=Attributes)
    location: Location = UNKNOWN


class Program(NamedTuple):
    """A whole text."""

    cells: list[CellNode]
    functions: list[FunctionNode]
