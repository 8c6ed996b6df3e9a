"""The text of passes: `linearize{of = @loss, wrt = [$w]}, transpose, dce`."""

import ast
import types
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import lark

from stategrad.ir.literals import read_string, string_text
from stategrad.ir.text import symbol

from .errors import PassTextError

FunctionName = Annotated[str, "@"]
"""An option that names a function of the module; printed `@loss`."""

CellName = Annotated[str, "$"]
"""An option that names a state cell; printed `$w`."""

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

Specs = list[tuple[str, dict[str, Any]]]


class _Symbol(str):
    """A name with its sigil, so that `@w` is told from `$w` and from `"@w"` until its option is known."""

    def __repr__(self) -> str:
        return str(self)


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
        return _Symbol(token[0] + (read_string(name) if name.startswith('"') else name))

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


def options_of(owner: type, given: dict[str, Any]) -> dict[str, Any]:
    """The options as the fields of `owner` want them: sigils checked and dropped.

    Raises:
        PassTextError: an option is unknown or of the wrong kind.
    """
    hints = option_types(owner)
    unknown = given.keys() - hints.keys()
    if unknown:
        known = ", ".join(hints) or "none"
        raise PassTextError(f"{owner.name} has no option {min(unknown)!r}; its options are: {known}")
    return {name: _fit(f"option {name} of {owner.name}", hints[name], value) for name, value in given.items()}


def option_types(owner: type) -> dict[str, Any]:
    """The annotation of each option of a pass."""
    hints = get_type_hints(owner, include_extras=True)
    return {f.name: hints[f.name] for f in fields(owner)}


def print_option(hint: Any, value: Any) -> str:
    """The text of an option's value that parses back."""
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(print_option(inner, v) for inner, v in _items(hint, value))}]"
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, str):
        return symbol(_sigil(hint), value) if _sigil(hint) else string_text(value)
    return repr(value)


def _choices(hint: Any) -> Iterable[Any]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _sigil(hint: Any) -> str:
    for choice in _choices(hint):
        if get_origin(choice) is Annotated:
            return choice.__metadata__[0]
    return ""


def _items(hint: Any, value: Any) -> Iterable[tuple[Any, Any]]:
    for choice in _choices(hint):
        if get_origin(choice) is tuple:
            return [(get_args(choice)[0], v) for v in value]
    return [(Any, v) for v in value]


def _fit(what: str, hint: Any, value: Any) -> Any:
    for choice in _choices(hint):
        if _fits(choice, value):
            return _plain(value)
    raise PassTextError(f"{what} is {_wanted(hint)}, not {value!r}")


def _fits(hint: Any, value: Any) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return isinstance(value, _Symbol) and value[0] == hint.__metadata__[0]
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(get_args(hint)[0], v) for v in value)
    if origin is Literal:
        return value in get_args(hint)
    if hint in (None, types.NoneType):
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return type(value) is hint


def _plain(value: Any) -> Any:
    if isinstance(value, _Symbol):
        return value[1:]
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _wanted(hint: Any) -> str:
    kinds = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "a string",
        types.NoneType: "none",
    }
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_wanted, get_args(hint)))
    if origin is Annotated:
        return "a function as in @f" if hint.__metadata__[0] == "@" else "a cell as in $s"
    if origin is tuple:
        return f"a list with each item {_wanted(get_args(hint)[0])}"
    if origin is Literal:
        return f"one of {', '.join(map(repr, get_args(hint)))}"
    return kinds.get(hint, str(hint))
