"""Filters: which States of many are meant.

A filter is a type (`ParamState`), a text (the State's tag), `True` or `...` (all), `False` or `None` (none),
a callable `(path, state) -> bool`, or a list or tuple of filters, meaning any of them.
"""

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any, TypeAlias

from .state import State

Path: TypeAlias = tuple[Any, ...]
"""Where a State is found in an object: attribute names, keys, positions."""
Filter: TypeAlias = (
    "type[Any] | str | bool | EllipsisType | Callable[[Path, State], bool] | Sequence[Filter] | None"
)
Predicate: TypeAlias = Callable[[Path, State], bool]


def to_predicate(filter: Filter) -> Predicate:
    """The filter as a function of the path and the State.

    Raises:
        TypeError: it is none of the things that a filter may be.
    """
    if isinstance(filter, type):
        return lambda path, state: isinstance(state, filter)
    if isinstance(filter, str):
        return lambda path, state: state.tag == filter
    if filter is ... or filter is True:
        return lambda path, state: True
    if filter is None or filter is False:
        return lambda path, state: False
    if isinstance(filter, list | tuple):
        predicates = [to_predicate(f) for f in filter]
        return lambda path, state: any(p(path, state) for p in predicates)
    if callable(filter):
        return filter
    raise TypeError(
        f"{filter!r} is no filter: expected a type of State, a tag, True or ..., False or None, "
        "a callable (path, state) -> bool, or a list of these"
    )
