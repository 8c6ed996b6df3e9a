"""Guards: the Python values that a function reads from closures, globals, defaults and attributes.

A compiled function contains such values as they were when it was traced. `Guards.of(fn)` finds them by
reading the bytecode of the function and of all functions of the user's that it can reach; `hold()` says,
before each call, whether all of them are still what they were (`guard_check` compiles that). What is read by
other means (a file, `getattr` with a name made at run time, a random number of Python's) is not seen.
"""

import builtins
import functools
import sys
import sysconfig
import weakref
from array import array
from collections import ChainMap, UserDict, UserList, deque
from collections.abc import Callable, Mapping
from functools import cached_property
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MappingProxyType,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import jax
import numpy as np

from .array_guard import ArrayGuard
from .code_reads import global_reads, loaded
from .guard_check import MISSING, SCALARS, Slots, compiled_check, same, same_items
from .state import Epochs, State
from .structure import Structure
from .user_frame import is_user_file

_CONTAINERS = (list, tuple, deque, bytearray, array, set, frozenset, dict, np.ndarray)


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
        self._names: dict[tuple[int, Any], str] = {}
        self._seen: dict[int, Any] = {}
        self._weak: Any = None
        self._loaded: set[str] = set()
        self._methods: list[tuple[Mapping[str, Any], str, Any, str]] = []
        self._owners: list[tuple[list[Any], Any, str]] = []
        self._attributes: list[tuple[Mapping[str, Any], str]] = []

    @staticmethod
    def of(fn: Callable[..., Any], weakly: bool = False) -> "Guards":
        """The guards of a function as things are now. `weakly`: they do not keep the function alive."""
        found = Guards()
        found._weak = fn if weakly else None
        found._enter(fn, getattr(fn, "__name__", "the function"))
        found._watch_names()
        if weakly:
            found._weak = None
            found._seen.clear()
        return found

    # ------------------------------------------------------------------ before each call
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
        return self._names.get((id(container), key), "a value that it reads")

    # ------------------------------------------------------------------ finding them
    def _enter(self, value: Any, name: str) -> None:
        """Follows a value that the function can read."""
        if isinstance(value, SCALARS) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, FunctionType):
            self._function(value, name)
        elif isinstance(value, MethodType):
            self._enter(value.__func__, name)
            self._enter(value.__self__, name)
        elif isinstance(value, functools.partial):
            for part in (value.func, *value.args):
                self._enter(part, name)
            self._enter(value.keywords, f"the keywords of {name}")
        elif isinstance(value, np.ndarray):
            self.arrays.append(ArrayGuard(value))
            self._names[id(value), None] = name
            for part in value.flat if value.dtype.hasobject else ():
                self._enter(part, name)
        elif isinstance(value, (list, tuple, deque, bytearray, array)):
            self._sequence(value, name)
        elif isinstance(value, (set, frozenset)):
            self.sets.append((value, frozenset(value)))
            self._names[id(value), None] = f"the set {name!r}"
        elif isinstance(value, (dict, MappingProxyType)):
            self.orders.append((value, [*value]))
            self._names[id(value), None] = f"the dict {name!r}"
            self._mapping(value, name, self.items, "{}[{!r}]")
        elif isinstance(value, type):
            self._class(value, name)
        elif isinstance(value, State):
            if all(value.structure.statics):
                self.states.append((value, value.structure))
        elif not isinstance(value, (jax.Array, ModuleType, BuiltinFunctionType)):
            self._object(value, name)
        if isinstance(value, _CONTAINERS) and type(value) not in _CONTAINERS:
            self._object(value, name)

    def _function(self, fn: FunctionType, name: str) -> None:
        wrapped = getattr(fn, "__wrapped__", None)
        if wrapped is not None:
            self._enter(wrapped, name)
        if not _is_users(fn.__code__.co_filename):
            return
        self._loaded |= loaded(fn.__code__)
        held: Any = weakref.proxy(fn) if fn is self._weak else fn
        self.defaults.append((held, fn.__code__, fn.__defaults__, dict(fn.__kwdefaults__ or {}) or None))
        for default in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
            self._enter(default, f"a default of {name}")
        if fn.__dict__:
            self._attributes.append((fn.__dict__, name))
        for free, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            self._closure(cell, free)
        for chain in global_reads(fn.__code__):
            self._global(fn.__globals__, chain)

    def _closure(self, cell: Any, name: str) -> None:
        try:
            value = cell.cell_contents
        except ValueError:  # not bound yet
            return
        if (id(cell), None) not in self._names:
            self.cells.append((cell, value))
            self._names[id(cell), None] = f"the closure variable {name!r}"
            self._seen[id(cell)] = cell
        self._enter(value, name)

    def _global(self, namespace: dict[str, Any], chain: tuple[str, ...]) -> None:
        name, *attributes = chain
        value = namespace.get(name, MISSING)
        if value is MISSING:
            if not hasattr(builtins, name):
                self._item(self.items, namespace, name, value, f"the global {name!r}")
            return
        if not isinstance(value, ModuleType):
            self._item(self.items, namespace, name, value, f"the global {name!r}")
            self._enter(value, name)
        elif attributes and _is_users(getattr(value, "__file__", None) or ""):
            self._global(vars(value), tuple(attributes))

    def _item(self, into: Any, container: Any, key: Any, value: Any, name: str) -> None:
        if (id(container), key) not in self._names:
            into.append((container, key, value))
            self._names[id(container), key] = name

    def _sequence(self, value: Any, name: str) -> None:
        if not isinstance(value, tuple):
            self.sequences.append((value, tuple(value)))
            self._names[id(value), None] = f"the list {name!r}"
        for i, part in enumerate(value):
            self._enter(part, f"{name}[{i}]")

    def _mapping(self, value: Mapping[Any, Any] | Slots, name: str, into: Any, form: str) -> None:
        for key, part in list(value.items()):
            shown = form.format(name, key)
            self._item(into, value, key, part, shown)
            self._enter(part, shown)

    def _class(self, cls: type, name: str) -> None:
        module = sys.modules.get(cls.__module__)
        if not _is_users(getattr(module, "__file__", None) or ""):
            return
        for base in cls.__mro__[1:]:
            self._enter(base, base.__name__)
        attributes = cls.__dict__  # alive
        self._seen[id(attributes)] = attributes
        self._owners.append((self.class_absent, attributes, name))
        for key, part in attributes.items():
            inner = part
            if isinstance(part, (staticmethod, classmethod, property)):
                inner = part.fget if isinstance(part, property) else part.__func__
            if isinstance(inner, FunctionType) and _is_written(inner):
                self._enter(inner, f"{cls.__name__}.{key}")
                self._methods.append((attributes, key, part, f"the method {cls.__name__}.{key}"))
            elif not key.startswith("__"):
                self._item(self.items, attributes, key, part, f"the attribute {name}.{key}")
        self._attributes.append((attributes, name))

    def _watch_names(self) -> None:
        """Of methods, and of attributes of functions and of libraries' objects, those are watched that code
        loads by name, and what stands in those of classes; and where code loads an attribute by a name that
        an object or class does not have, that it gets none.
        """
        entered = set[tuple[int, str]]()
        before = -1
        while before < len(entered):  # what is entered may load more names
            before = len(entered)
            for attributes, name in list(self._attributes):
                for key in self._loaded.intersection(attributes):
                    if (id(attributes), key) not in entered:
                        entered.add((id(attributes), key))
                        self._attribute(attributes, key, f"{name}.{key}")
        for attributes, key, part, name in self._methods:
            if key in self._loaded or key == "__call__":
                self._item(self.items, attributes, key, part, name)
        for into, attributes, name in self._owners:
            missing = frozenset(self._loaded.difference(attributes))
            if missing:
                into.append((attributes.keys(), missing, name))

    def _attribute(self, owner: Mapping[str, Any], key: str, name: str) -> None:
        part = owner[key]
        if not isinstance(owner, MappingProxyType):  # those of classes are watched already
            self._item(self.items, owner, key, part, name)
        if not isinstance(part, (FunctionType, staticmethod, classmethod, property)):
            self._enter(part, name)

    def _object(self, value: Any, name: str) -> None:
        """An instance: the attributes of a Module are watched together, those of others one by one."""
        own = getattr(value, "__dict__", None)
        for part in (own.get("__wrapped__"), *own.get("also_reads", ())) if own else ():
            if part is not None:
                self._enter(part, name)
        for cls in type(value).__mro__:
            self._enter(cls, cls.__name__)
        counted = getattr(type(value), "attributes_are_counted", False)
        into = self.module_items if counted else self.items
        module = sys.modules.get(type(value).__module__)
        if (
            counted
            or isinstance(value, SimpleNamespace)
            or _is_users(getattr(module, "__file__", None) or "")
        ):
            if own is not None:
                self._mapping(own, name, into, "{}.{}")
                self._owners.append((self.module_absent if counted else self.absent, own, name))
            self._mapping(Slots(value), name, self.items, "{}.{}")
        elif own:
            self._attributes.append((own, name))
            if isinstance(value, (UserDict, UserList, ChainMap)):
                for part in own.values():
                    self._enter(part, name)


def _is_written(method: FunctionType) -> bool:
    """Whether somebody has written a method: those that dataclasses make read nothing that changes."""
    return method.__code__.co_filename != "<string>" or not method.__name__.startswith("__")


@functools.cache
def _is_users(file: str) -> bool:
    return is_user_file(file) and not file.startswith(_libraries())


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Where Python's own modules and installed ones lie; asking takes milliseconds."""
    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _changed(name: str, before: Any, now: Any) -> str:
    shown = _shown(now)
    if _shown(before) == shown:
        return f"{name} became another object, {shown}"
    return f"{name} changed from {_shown(before)} to {shown}"


def _shown(value: Any) -> str:
    text = "nothing" if value is MISSING else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
