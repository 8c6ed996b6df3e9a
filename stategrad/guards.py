"""Guards: the Python values that a function reads from closures, globals, defaults and attributes.

A compiled function contains such values as they were when it was traced. `hold()` says, before each call,
whether all of them are still what they were (`guard_check` compiles that); `guard_search` finds them.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from types import CodeType, FunctionType
from typing import Any

from .array_guard import ArrayGuard
from .guard_check import MISSING, compiled_check, same, same_items
from .state import Epochs, State
from .structure import Structure


class Guards:
    """What a function reads that is no argument and no State.

    The lists hold `(container, key, value)`; `names` tells for each guard how a person calls it. `states` are
    those without arrays: the calls look after the others.
    """

    def __init__(self) -> None:
        self.cells: list[tuple[Any, Any]] = []
        self.items: list[tuple[Mapping[Any, Any], Any, Any]] = []
        self.sequences: list[tuple[Any, tuple[Any, ...]]] = []
        self.sets: list[tuple[Any, frozenset[Any]]] = []
        self.orders: list[tuple[Mapping[Any, Any], list[Any]]] = []
        self.absent: list[tuple[Any, frozenset[str], str]] = []
        self.class_absent: list[tuple[Any, frozenset[str], str]] = []
        self.arrays: list[ArrayGuard] = []
        self.defaults: list[tuple[FunctionType, CodeType, Any, Any]] = []
        self.module_items: list[tuple[Mapping[Any, Any], Any, Any]] = []
        self.module_absent: list[tuple[Any, frozenset[str], str]] = []
        self.states: list[tuple[State, Structure]] = []
        self.epoch = Epochs.attributes
        self.names: dict[tuple[int, Any], str] = {}

    def hold(self) -> bool:
        """Whether everything is as it was."""
        return self.check()

    @cached_property
    def check(self) -> Callable[[], bool]:
        """What `hold` does."""
        return compiled_check(self)

    def broken(self) -> str | None:
        """What is no longer as it was, in a sentence for a person; None if equal values stand everywhere."""
        for cell, value in self.cells:
            now = cell.cell_contents
            if not same(now, value):
                return _changed(self._name(cell, None), value, now)
        for container, key, value in (*self.items, *self.module_items):
            now = container.get(key, MISSING)
            if not same(now, value):
                return _changed(self._name(container, key), value, now)
        for sequence, values in self.sequences:
            if len(sequence) != len(values) or not all(map(same, sequence, values)):
                return _changed(
                    self._name(sequence, None), [*values] if type(sequence) is list else values, sequence
                )
        for container, before in (*self.orders, *self.sets):
            if ([*container] if isinstance(before, list) else container) != before:
                return f"{self._name(container, None)} changed"
        for keys, those, name in (*self.absent, *self.class_absent, *self.module_absent):
            if not keys.isdisjoint(those):
                return f"{name} has got the attribute {min(those.intersection(keys))!r}"
        for fn, code, defaults, keywords in self.defaults:
            if (
                fn.__code__ is not code
                or fn.__defaults__ is not defaults
                or not same_items(fn.__kwdefaults__ or {}, keywords or {})
            ):
                return f"the code or the defaults of {fn.__name__} changed"
        for guard in self.arrays:
            if not guard.holds():
                return f"{self._name(guard.array, None)}, a NumPy array, changed in place"
        for state, structure in self.states:
            if state.structure != structure:
                return f"the State {state.name!r} changed from {structure} to {state.structure}"
        self.epoch = Epochs.attributes  # attributes were set, but none of those that count
        return None

    def _name(self, container: Any, key: Any) -> str:
        return self.names.get((id(container), key), "a value that it reads")


def _changed(name: str, before: Any, now: Any) -> str:
    shown = _shown(now)
    if _shown(before) == shown:
        return f"{name} became another object, {shown}"
    return f"{name} changed from {_shown(before)} to {shown}"


def _shown(value: Any) -> str:
    text = "nothing" if value is MISSING else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
