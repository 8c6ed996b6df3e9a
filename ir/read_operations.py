"""One operation of a text: its row, the order of its operands, its attributes, its types."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from .attributes import has_implied_type, unwritten
from .core import Region, Type
from .errors import IRTypeError
from .infer import result_types
from .opdef import ROWS, OpDef, lookup
from .read_attributes import Scope, read_data, read_value, word_or_string
from .syntax import AttributeNode, Attributes, OperationNode, Token
from .text import symbol


def read_opdef(token: Token, scope: Scope) -> OpDef:
    """The operation of that name.

    Raises:
        IRSyntaxError: there is none.
    """
    found = lookup(str(token))
    if found is None:
        raise scope.error(token, f"there is no operation {token}{similar(token, ROWS, '')}")
    return found


def operand_tokens(node: OperationNode) -> Iterable[Token]:
    """The values among the operands, those in groups behind the others."""
    plain = [t for t in node.operands if t.type == "VALUE"]
    return chain(plain, *[group.values for group in node.groups])


def read_operation_attributes(
    node: OperationNode, opdef: OpDef, types: Sequence[Type], scope: Scope
) -> dict[str, Any]:
    """All attributes: those in braces, the symbols before the operands, the lengths of operand groups.

    Raises:
        IRSyntaxError: one is given twice or badly, or symbols or groups stand in the wrong order.
    """
    attributes = _symbols(node, opdef, scope)
    _add_written(node.attributes, attributes, opdef, types, scope)
    if opdef.segments:
        _add_lengths(node, opdef, attributes, scope)
    elif node.groups:
        raise scope.error(node.groups[0].name, f"the operands of {opdef.name} do not stand in groups")
    return attributes


def read_attributes(nodes: Attributes, scope: Scope) -> dict[str, Any]:
    """The attributes of a function.

    Raises:
        IRSyntaxError: one is given twice or badly.
    """
    attributes: dict[str, Any] = {}
    _add_written(nodes, attributes, None, (), scope)
    return attributes


def check_types(
    node: OperationNode,
    opdef: OpDef,
    operands: Sequence[Type],
    attributes: Mapping[str, Any],
    regions: Sequence[Region],
    declared: tuple[Type, ...],
    scope: Scope,
) -> None:
    """Holds the types in the text against the type rule.

    Raises:
        IRSyntaxError: the rule refuses the operation, or gives other types.
    """
    try:
        found = result_types(opdef, operands, attributes, regions, declared)
    except IRTypeError as e:
        raise scope.error(node.name, str(e)) from None
    if len(found) != len(declared):
        raise scope.error(
            node.name, f"the number of results of {opdef.name} is {len(found)}, not {len(declared)}"
        )
    for binder, right, wrong in zip(node.results, found, declared, strict=True):
        if right != wrong:
            raise scope.error(binder.type, f"{opdef.name} gives {right} here, not {wrong}")


def similar(token: Token, known: Iterable[str], sigil: str) -> str:
    """A hint at the name that may have been meant."""
    found = difflib.get_close_matches(str(token).removeprefix(sigil), known, 1)
    return f"; did you mean {symbol(sigil, found[0]) if sigil else found[0]}?" if found else ""


def _symbols(node: OperationNode, opdef: OpDef, scope: Scope) -> dict[str, Any]:
    symbols = [t for t in node.operands if t.type != "VALUE"]
    if not symbols:
        return {}
    if len(symbols) != len(opdef.symbols):
        wanted = ", ".join(opdef.symbols) or "none"
        raise scope.error(symbols[0], f"{opdef.name} takes these symbols before its operands: {wanted}")
    if node.operands[: len(symbols)] != tuple(symbols):
        raise scope.error(symbols[-1], "symbols stand before the operands")
    return {name: read_value(t, scope, t) for name, t in zip(opdef.symbols, symbols, strict=True)}


def _add_written(
    nodes: Attributes, attributes: dict[str, Any], opdef: OpDef | None, types: Sequence[Type], scope: Scope
) -> None:
    """Adds what stands in braces, and attributes that are not written."""
    written: dict[str, AttributeNode] = {}
    for node in nodes:
        name = word_or_string(node.name, scope)
        if name in written or name in attributes:
            raise scope.error(node.name, f"the attribute {name} is given twice")
        written[name] = node
    given = written.pop("type", None)
    if given is not None:
        attributes["type"] = read_value(given.value, scope, given.name)
    implied = opdef is not None and has_implied_type(opdef, types, attributes)
    if implied:
        attributes["type"] = types[0]
    for name, (place, value) in written.items():
        if implied and name == "value":
            attributes[name] = read_data(value, types[0], scope, place)
        else:
            attributes[name] = read_value(value, scope, place)
    if opdef is not None:
        for name, value in unwritten(opdef, types).items():
            attributes.setdefault(name, value)


def _add_lengths(node: OperationNode, opdef: OpDef, attributes: dict[str, Any], scope: Scope) -> None:
    """Adds the lengths of operand groups; a text may also write them as attributes, and no groups."""
    names = [str(g.name) for g in node.groups]
    wanted = opdef.segments[:-1]
    if names != [s for s in opdef.segments if s in names]:
        order = ", ".join(opdef.segments)
        raise scope.error(node.groups[0].name, f"the operand groups of {opdef.name} come in order {order}")
    if not names and all(name in attributes for name in wanted):
        return
    misplaced = [a.name for a in node.attributes if str(a.name) in wanted]
    misplaced += [t for t in node.operands if t.type == "VALUE"]
    if misplaced:
        groups = " ".join(f"{s}(…)" for s in opdef.segments)
        raise scope.error(misplaced[0], f"the operands of {opdef.name} stand in groups: {groups}")
    lengths = {str(g.name): len(g.values) for g in node.groups}
    attributes.update((name, lengths.get(name, 0)) for name in wanted)
