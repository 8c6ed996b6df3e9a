"""The text of passes, read: `linearize{of = @loss, wrt = [$w]}, transpose, dce`."""

import ast
from collections import Counter
from typing import Any

import lark

from stategrad.ir.literals import read_string

from .errors import PassTextError
from .spec import Specs, Symbol

_GRAMMAR = r"""
    pipeline: (spec ("," spec)*)?
    spec: WORD options?
    options: "{" (option ("," option)*)? "}"
    option: WORD "=" value
    ?value: SYMBOL | STRING | WORD | NUMBER | list
    list: "[" (value ("," value)*)? "]"

    SYMBOL: /[@$]/ (/[\w.\-\/<>]+/ | STRING)
    STRING: /"(\\.|[^"\\])*"/
    NUMBER: /-?[0-9]+(\.[0-9]*)?(e[+-]?[0-9]+)?(?![\w])/
    WORD: /[A-Za-z_][\w\-]*/
    %ignore /\s+/
"""
_PARSER = lark.Lark(_GRAMMAR, parser="lalr", start="pipeline", maybe_placeholders=False)
_WORDS = {"true": True, "false": False, "none": None}


class _Read(lark.Transformer[lark.Token, Specs]):
    """The tree as Python values."""

    pipeline = list
    list = tuple
    option = tuple

    def spec(self, parts: list[Any]) -> tuple[str, dict[str, Any]]:
        name, *options = parts
        return str(name), options[0] if options else {}

    def options(self, parts: list[tuple[str, Any]]) -> dict[str, Any]:
        for name, count in Counter(name for name, _ in parts).items():
            if count > 1:
                raise PassTextError(f"the option {name} is given {count} times")
        return dict(parts)

    def SYMBOL(self, token: lark.Token) -> str:
        name = token[1:]
        return Symbol(token[0] + (read_string(name) if name.startswith('"') else name))

    def STRING(self, token: lark.Token) -> str:
        return read_string(token)

    def NUMBER(self, token: lark.Token) -> int | float:
        return ast.literal_eval(token)

    def WORD(self, token: lark.Token) -> Any:
        return _WORDS.get(token, str(token))


def parse_specs(text: str) -> Specs:
    """The names and options in the text of a pipeline, names of functions and cells still with their sigil.

    Raises:
        PassTextError: the text is not a list of passes; the message points at the place.
    """
    try:
        return _Read().transform(_PARSER.parse(text))
    except lark.exceptions.VisitError as e:
        raise e.orig_exc from None
    except lark.UnexpectedInput as e:
        at_end = isinstance(e, lark.UnexpectedToken) and e.token.type == "$END"
        shown = text.splitlines()[-1 if at_end else e.line - 1]
        column = len(shown) + 1 if at_end else e.column
        message = "expected passes as in `linearize{of = @loss, wrt = [$w]}, dce`"
        raise PassTextError(f"column {column}: {message}\n    {shown}\n    {' ' * (column - 1)}^") from None
