"""The options of passes as text: what kinds there are, how each prints, and what fits a field."""

import types
from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from stategrad.ir.literals import string_text
from stategrad.ir.text import symbol

from .errors import PassTextError

FunctionName = Annotated[str, "@"]
"""An option that names a function of the module; printed `@loss`."""

CellName = Annotated[str, "$"]
"""An option that names a state cell; printed `$w`."""

Specs = list[tuple[str, dict[str, Any]]]


class Symbol(str):
    """A name with its sigil, so that `@w` is told from `$w` and from `"@w"` until its option is known."""

    def __repr__(self) -> str:
        return str(self)


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
        return isinstance(value, Symbol) and value[0] == hint.__metadata__[0]
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
    if isinstance(value, Symbol):
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
