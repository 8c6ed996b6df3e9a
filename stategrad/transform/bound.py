"""Transformed functions as methods: one transformed function for each object, kept as long as the object."""

import weakref
from collections.abc import Callable
from typing import Any

from .wanted import is_sequence


class Bound:
    """The functions made from one descriptor, by the object that they are bound to."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._made: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def of(self, instance: Any) -> Any:
        """The function bound to `instance`; made at the first call. Objects are told apart by identity."""
        key = id(instance)
        found = self._made.get(key)
        if found is not None and found[0]() is instance:
            return found[1]
        made = self._make(instance)
        self._made[key] = weakref.ref(instance, lambda _: self._made.pop(key, None)), made
        return made


def without_self(argnums: Any) -> Any:
    """Argument positions of a method as positions of the bound method: they count `self`, unless there is a 0
    among them, which cannot be meant.
    """
    if not is_sequence(argnums):
        return argnums - 1 if argnums is not None and argnums > 0 else argnums
    numbers = tuple(argnums)
    return numbers if 0 in numbers else tuple(n - 1 if n > 0 else n for n in numbers)
