"""The values of attributes from what the grammar read; `attributes` describes the text."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from .core import Cell, Function, Type
from .dtypes import DType, dtype, numpy_dtype
from .errors import IRSyntaxError, IRTypeError
from .literals import LiteralError, read_blob, read_complex, read_float, read_int, read_number, read_string
from .opaque import opaque_value
from .syntax import ComplexNode, ListNode, Token, TypedNode, ValueNode

_DEEPEST = 64
_LARGEST_SIZE = 2**63 - 1
_WORDS = {"true": True, "false": False, "none": None}


class Scope(Protocol):
    """What a text is read in."""

    def cell(self, token: Token) -> Cell:
        """The cell that a token names."""
        ...

    def function(self, token: Token) -> Function:
        """The function that a token names."""
        ...

    def error(self, place: Any, message: str) -> IRSyntaxError:
        """An error that shows a place in the text."""
        ...


def read_value(node: ValueNode, scope: Scope, place: Token) -> Any:
    """The value of a node; `place` is where errors point that have no token of their own.

    Raises:
        IRSyntaxError: the node is not a value.
    """
    if isinstance(node, ListNode):
        _check_depth(node, scope, place)
        return tuple([read_value(item, scope, place) for item in node.items])
    if isinstance(node, TypedNode):
        return read_data(node.data, read_type(node.type, scope), scope, place)
    if isinstance(node, ComplexNode):
        return complex(_checked(lambda: _element(node, dtype("c128")), scope, node.real))
    if node.type == "CELL":
        return scope.cell(node)
    if node.type == "FUNC":
        return scope.function(node)
    return _checked(lambda: _READERS[node.type](str(node)), scope, node)


def read_data(node: ValueNode, type: Type, scope: Scope, place: Token) -> Any:
    """An array of that type, or a scalar of its element type where the text has one number.

    Raises:
        IRSyntaxError: the node is not such data.
    """
    if isinstance(node, ListNode):
        _check_depth(node, scope, place)
        return _checked(lambda: _array(node, type), scope, place)
    if isinstance(node, TypedNode) or (not isinstance(node, ComplexNode) and node.type not in _DATA):
        return read_value(node, scope, place)
    if not isinstance(node, ComplexNode) and node.type == "BLOB":
        return _checked(lambda: read_blob(str(node)[7:-1], type.dtype, type.shape), scope, node)
    place = node.real if isinstance(node, ComplexNode) else node
    return _checked(lambda: _element(node, type.dtype), scope, place)


def word_or_string(token: Token, scope: Scope) -> str:
    """A name that is written in quotes where it is unusual.

    Raises:
        IRSyntaxError: it has an unknown escape.
    """
    return _checked(lambda: read_string(str(token)), scope, token) if token.type == "STRING" else str(token)


def read_type(token: Token, scope: Scope) -> Type:
    """The type that a token names.

    Raises:
        IRSyntaxError: there is no such type.
    """
    return _checked(lambda: type_of_text(str(token)), scope, token)


@lru_cache(maxsize=4096)
def type_of_text(text: str) -> Type:
    """The type that `str` prints as `text`; unlike `Type.parse` it accepts nothing else.

    Raises:
        LiteralError: the text is not a type, or one that no machine could hold.
        IRTypeError: there is no such element type.
    """
    found = _TYPE.fullmatch(text)
    if found is None:
        raise LiteralError(f"{text[:40]!r} is not a type; types are written f32[2,3], a scalar's f32[]")
    shape = tuple(int(d) for d in found[2].split(",") if d)
    made = Type(dtype(found[1]), shape)
    if len(shape) > 64 or made.size > _LARGEST_SIZE:
        raise LiteralError("an array has at most 64 axes and 2**63 - 1 elements")
    return made


_TYPE = re.compile(r"([A-Za-z]\w*(?:<\w+>)?)\[((?:[0-9]{1,18}(?:,[0-9]{1,18})*)?)\]")


def _checked(read: Callable[[], Any], scope: Scope, place: Token) -> Any:
    try:
        return read()
    except (LiteralError, IRTypeError) as e:
        raise scope.error(place, str(e)) from None


def _check_depth(node: ListNode, scope: Scope, place: Token) -> None:
    if node.depth > _DEEPEST:
        raise scope.error(place, f"lists nest {node.depth} deep, and {_DEEPEST} is the most")


def _word(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    return numpy_dtype(text[6:]) if text.startswith("numpy.") else dtype(text)


def _blob(text: str) -> Any:
    raise LiteralError('the type of an array stands before its data: f32[100] base64"…"')


_READERS: dict[str, Callable[[str], Any]] = {
    "INT": read_int,
    "FLOAT": lambda text: float(read_float(text, np.dtype(np.float64))),
    "STRING": read_string,
    "NAME": _word,
    "TYPE": type_of_text,
    "BLOB": _blob,
    "OPAQUE": lambda text: opaque_value(text[7:-1]),
}
_DATA = frozenset(("INT", "FLOAT", "NAME", "BLOB"))


def _element(node: ValueNode, of: DType) -> Any:
    if isinstance(node, ComplexNode):
        return read_complex(str(node.real), str(node.imaginary), of)
    if isinstance(node, (ListNode, TypedNode)) or node.type not in ("INT", "FLOAT", "NAME"):
        raise LiteralError(f"expected a {of}")
    text = str(node)
    if of.kind == "b" and text in ("true", "false"):
        return np.bool_(text == "true")
    return read_number(text, of)


def _array(node: ListNode, type: Type) -> np.ndarray:
    if type.dtype.numpy is None:
        raise LiteralError(f"arrays of {type.dtype} have no text")
    elements: list[Any] = []
    _flatten(node, type, type.shape, elements)
    array = np.array(elements, type.dtype.numpy).reshape(type.shape)
    array.flags.writeable = False
    return array


def _flatten(node: ValueNode, type: Type, shape: tuple[int, ...], elements: list[Any]) -> None:
    if not shape:
        elements.append(_element(node, type.dtype))
        return
    if not isinstance(node, ListNode) or len(node.items) != shape[0]:
        raise LiteralError(f"the lists do not have the shape of {type}")
    for item in node.items:
        _flatten(item, type, shape[1:], elements)
