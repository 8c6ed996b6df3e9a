"""The parser's door: what is behind it, Lark included, is imported when the first text is read."""

from typing import TYPE_CHECKING

from .core import Module
from .lazy import Lazy

if TYPE_CHECKING:
    from . import read_module as reader
else:
    reader = Lazy("stategrad.ir.read_module")


def parse(text: str, file: str = "<string>") -> Module:
    """The module that a text describes; `file` is named in errors.

    Raises:
        IRSyntaxError: whatever is wrong with the text: it is not a well-formed and well-typed program.
    """
    return reader.read_module(text, file)
