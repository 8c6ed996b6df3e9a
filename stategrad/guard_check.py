"""The test that runs before each call: whether all values that a function reads are still what they were.

It compares dozens of values in about a microsecond, so it is compiled: one expression without a loop and
without calls where there can be none. Variables of closures are its own, through the same cells; entries of
dicts are looked up by subscript. Whatever raises on the way is a change.
"""

from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from types import FunctionType, MappingProxyType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

import jax

from .state import Epochs

if TYPE_CHECKING:
    from .guards import Guards

SCALARS = (bool, int, float, complex, str, bytes, type(None))
MISSING = object()
_UNROLLED = 16


def same(now: Any, before: Any) -> bool:
    """Whether a value is the same object, or an equal number, string or tuple of such of the same type."""
    if now is before:
        return True
    if type(now) is not type(before):
        return False
    if isinstance(now, SCALARS):
        if now == before:
            return bool(now) or repr(now) == repr(before)  # 0.0 is not -0.0
        return now != now and before != before
    return isinstance(now, tuple) and len(now) == len(before) and all(map(same, now, before))


def same_items(now: Mapping[Any, Any] | None, before: Mapping[Any, Any]) -> bool:
    """Whether a mapping has the same keys with the same values."""
    return now is not None and now.keys() == before.keys() and all(same(now[key], before[key]) for key in now)


class Slots:
    """What stands in the `__slots__` of an object, as a mapping that is alive."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def get(self, key: str, default: Any) -> Any:
        return getattr(self.owner, key, default)

    def __getitem__(self, key: str) -> Any:
        return self.get(key, MISSING)

    def __iter__(self) -> Iterator[str]:
        for cls in type(self.owner).__mro__:
            for key, part in vars(cls).items():
                if isinstance(part, MemberDescriptorType) and not key.startswith("__"):
                    yield key

    def items(self) -> Iterator[tuple[str, Any]]:
        return ((key, self[key]) for key in self)


class Current:
    """What a context variable holds, as a mapping of one entry that is alive."""

    __slots__ = ("get",)

    def __init__(self, variable: ContextVar[Any]) -> None:
        self.get = lambda _, default: variable.get(default)


def compiled_check(guards: "Guards") -> Callable[[], bool]:
    """A function of no arguments that says whether everything is as it was."""
    return _Writer(guards).check()


class _Writer:
    """Writes the expression; `names` are the objects that occur in it."""

    def __init__(self, guards: "Guards") -> None:
        self._guards = guards
        self._cells: dict[str, Any] = {}
        self._names: dict[str, Any] = {"same": same, "same_items": same_items, "Epochs": Epochs}
        self._known: dict[int, str] = {}

    def check(self) -> Callable[[], bool]:
        """Compiles it."""
        test = " and ".join(self._terms()) or "True"
        source = (
            f"def outer({', '.join(self._cells)}):\n"
            f"    def check():\n"
            f"        try:\n"
            f"            return {test}\n"
            f"        except Exception:\n"
            f"            return False\n"
            f"    return check\n"
        )
        exec(source, self._names)
        code = self._names.pop("outer")(*self._cells).__code__
        closure = tuple(self._cells[name] for name in code.co_freevars)
        return FunctionType(code, self._names, "check", None, closure)

    def _named(self, value: Any) -> str:
        name = self._known.setdefault(id(value), f"v{len(self._names)}")
        self._names[name] = value
        return name

    def _same(self, now: str, before: Any) -> str:
        return f"({now} is {(value := self._named(before))} or same({now}, {value}))"

    def _terms(self) -> Iterator[str]:
        guards = self._guards
        if guards.module_items or guards.module_absent or guards.states:
            yield f"({(own := self._named(guards))}.epoch == Epochs.attributes or {own}.broken() is None)"
        for cell, value in guards.cells:
            name = f"c{len(self._cells)}"
            self._cells[name] = cell
            yield self._same(name, value)
        for container, key, value in guards.items:
            yield self._item(container, key, value)
        for sequence, values in guards.sequences:
            yield from self._sequence(sequence, values)
        for container, keys in guards.orders:
            yield f"[*{self._named(container)}] == {self._named(keys)}"
        for keys, those, _ in (*guards.absent, *guards.class_absent):
            # All keys of an object are watched; classes get attributes, and hardly ever lose one.
            now = self._named(keys)
            yield f"(len({now}) == {len(keys)} or {now}.isdisjoint({self._named(those)}))"
        for container, members in guards.sets:
            yield f"{self._named(container)} == {self._named(members)}"
        for fn, code, defaults, keywords in guards.defaults:
            yield from self._function(fn, code, defaults, keywords)
        for guard in guards.arrays:
            yield f"{self._named(guard.holds)}()"

    def _item(self, container: Any, key: Any, value: Any) -> str:
        shown = repr(key) if type(key) in (str, int) else self._named(key)
        if type(container) not in (dict, MappingProxyType):
            missing = self._named(MISSING)
            return self._same(f"{self._named(container)}.get({shown}, {missing})", value)
        if value is MISSING:
            return f"{shown} not in {self._named(container)}"
        return self._same(f"{self._named(container)}[{shown}]", value)

    def _sequence(self, sequence: Any, values: tuple[Any, ...]) -> Iterator[str]:
        now = self._named(sequence)
        if type(sequence) is list and all(map(_is_compared_by_identity, values)):
            yield f"{now} == {self._named(list(values))}"
        elif type(sequence) is list and len(values) <= _UNROLLED:
            yield f"len({now}) == {len(values)}"
            yield from (self._same(f"{now}[{i}]", value) for i, value in enumerate(values))
        else:
            yield f"same(tuple({now}), {self._named(values)})"

    def _function(self, fn: Any, code: Any, defaults: Any, keywords: Any) -> Iterator[str]:
        """Where there was no default, every call gave the argument, and would give it again."""
        now = self._named(fn)
        yield f"{now}.__code__ is {self._named(code)}"
        if defaults is not None:
            yield f"{now}.__defaults__ is {self._named(defaults)}"
        if keywords is not None:
            yield f"same_items({now}.__kwdefaults__, {self._named(keywords)})"


def _is_compared_by_identity(value: Any) -> bool:
    """Whether, in a list, nothing but the object itself compares equal to it. An array compares element by
    element, and an answer of more than one element is none: it raises.
    """
    return type(value).__eq__ is object.__eq__ or (isinstance(value, jax.Array) and value.size > 1)
