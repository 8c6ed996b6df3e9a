"""Finding what a function reads from closures, globals, defaults and attributes.

That is done by reading the bytecode of the function and of all functions of the user's that it can reach.
What is read by other means (a file, `getattr` with a name made at run time, a random number of Python's) is
not seen.
"""

import builtins
import functools
import sys
import sysconfig
import weakref
from array import array
from collections import ChainMap, UserDict, UserList, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from importlib.util import find_spec
from types import (
    BuiltinFunctionType,
    FunctionType,
    MappingProxyType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any

import jax
import numpy as np

from .array_guard import ArrayGuard
from .code_reads import global_reads, imported, loaded
from .guard_check import MISSING, SCALARS, Current, Slots
from .guards import Guards
from .state import ParamState, State
from .user_frame import is_user_file

_CONTAINERS = (list, tuple, deque, bytearray, array, set, frozenset, dict, np.ndarray)
_FUNCTIONS = (FunctionType, MethodType, functools.partial)
_BINARY = "add sub mul matmul truediv floordiv mod pow and or xor lshift rshift".split()
_OTHER = (
    "call getattr getattribute getitem iter len contains bool float int index array jax_array enter exit "
    "neg pos abs invert eq ne lt le gt ge"
).split()
_CALLED_BY_OPERATORS = frozenset(
    f"__{name}__" for name in (*_OTHER, *(side + name for side in ("", "r", "i") for name in _BINARY))
)


def guards_of(fn: Callable[..., Any], weakly: bool = False) -> Guards:
    """The guards of a function as things are now. `weakly`: they do not keep the function alive."""
    search = _Search(fn if weakly else None)
    search.run(fn)
    return search.found


class _Search:
    """Follows values to all that can be reached from them; `found` is what it has found."""

    def __init__(self, weak: Callable[..., Any] | None) -> None:
        self.found = Guards()
        self._seen: dict[int, Any] = {}
        self._weak = weak
        self._loaded: set[str] = set()
        self._methods: list[tuple[Mapping[str, Any], str, Any, str]] = []
        self._owners: list[tuple[list[Any], Any, str]] = []
        self._attributes: list[tuple[Mapping[str, Any] | Slots, str]] = []
        self._tagged: list[tuple[State, str]] = []

    def run(self, fn: Callable[..., Any]) -> None:
        """Begins with a function."""
        self._enter(fn, getattr(fn, "__name__", "the function"))
        self._watch_names()

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
            self.found.arrays.append(ArrayGuard(value))
            self.found.names[id(value), None] = name
            for part in value.flat if value.dtype.hasobject else ():
                self._enter(part, name)
        elif isinstance(value, (list, tuple, deque, bytearray, array)):
            self._sequence(value, name)
        elif isinstance(value, (set, frozenset)):
            self.found.sets.append((value, frozenset(value)))
            self.found.names[id(value), None] = f"the set {name!r}"
            for part in value:
                self._enter(part, f"a member of {name}")
        elif isinstance(value, (dict, MappingProxyType)):
            self.found.orders.append((value, [*value]))
            self.found.names[id(value), None] = f"the dict {name!r}"
            self._mapping(value, name, self.found.items, "{}[{!r}]")
        elif isinstance(value, type):
            self._class(value, name)
        elif isinstance(value, State):
            self._state(value, name)
        elif isinstance(value, ModuleType):
            if _of_users(value):
                self._attributes.append((vars(value), name))
        elif isinstance(value, (BuiltinFunctionType, MethodWrapperType)):
            self._enter(value.__self__, name)
        elif isinstance(value, ContextVar):
            now = value.get(MISSING)
            self._item(self.found.items, Current(value), None, now, f"the context variable {value.name!r}")
            self._enter(now, name)
        elif not isinstance(value, jax.Array):
            self._object(value, name)
        if isinstance(value, _CONTAINERS) and type(value) not in _CONTAINERS:
            self._object(value, name)

    def _function(self, fn: FunctionType, name: str) -> None:
        wrapped = getattr(fn, "__wrapped__", None)
        if wrapped is not None:
            self._enter(wrapped, name)
        if not _is_users(fn.__code__.co_filename):
            for part in _functions_in(map(_content, fn.__closure__ or ())):
                self._enter(part, name)
            return
        self._loaded |= loaded(fn.__code__)
        held: Any = weakref.proxy(fn) if fn is self._weak else fn
        self.found.defaults.append(
            (held, fn.__code__, fn.__defaults__, dict(fn.__kwdefaults__ or {}) or None)
        )
        for default in (*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values()):
            self._enter(default, f"a default of {name}")
        if fn.__dict__:
            self._attributes.append((fn.__dict__, name))
        for free, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            self._closure(cell, free)
        for chain in global_reads(fn.__code__):
            self._global(fn.__globals__, chain)
        for module in imported(fn.__code__, fn.__globals__.get("__package__")):
            self._import(module)

    def _closure(self, cell: Any, name: str) -> None:
        value = _content(cell)
        if value is MISSING:
            return
        if (id(cell), None) not in self.found.names:
            self.found.cells.append((cell, value))
            self.found.names[id(cell), None] = f"the closure variable {name!r}"
            self._seen[id(cell)] = cell
        self._enter(value, name)

    def _global(self, namespace: dict[str, Any], chain: tuple[str, ...]) -> None:
        name, *attributes = chain
        value = namespace.get(name, MISSING)
        if value is MISSING:
            if not hasattr(builtins, name):
                self._item(self.found.items, namespace, name, value, f"the global {name!r}")
            return
        if not isinstance(value, ModuleType):
            self._item(self.found.items, namespace, name, value, f"the global {name!r}")
            self._enter(value, name)
        elif not attributes:
            self._enter(value, name)
        elif _of_users(value):
            self._global(vars(value), tuple(attributes))

    def _import(self, name: str) -> None:
        """A module that the function imports. If there is none yet, it is watched when there is one."""
        module = sys.modules.get(name, MISSING)
        if module is MISSING:
            spec = None if "." in name else find_spec(name)
            if spec is not None and _is_users(spec.origin or ""):
                self._item(self.found.items, sys.modules, name, module, f"the module {name!r}")
        else:
            self._enter(module, name)

    def _item(self, into: Any, container: Any, key: Any, value: Any, name: str) -> None:
        if (id(container), key) not in self.found.names:
            into.append((container, key, value))
            self.found.names[id(container), key] = name

    def _sequence(self, value: Any, name: str) -> None:
        if not isinstance(value, tuple):
            self.found.sequences.append((value, tuple(value)))
            self.found.names[id(value), None] = f"the list {name!r}"
        for i, part in enumerate(value):
            self._enter(part, f"{name}[{i}]")

    def _mapping(self, value: Mapping[Any, Any] | Slots, name: str, into: Any, form: str) -> None:
        for key, part in list(value.items()):
            shown = form.format(name, key)
            self._item(into, value, key, part, shown)
            self._enter(part, shown)

    def _class(self, cls: type, name: str) -> None:
        module = sys.modules.get(cls.__module__)
        if not _of_users(module):
            return
        for base in (type(cls), *cls.__mro__[1:]):
            self._enter(base, base.__name__)
        attributes = cls.__dict__  # alive
        self._seen[id(attributes)] = attributes
        self._owners.append((self.found.class_absent, attributes, name))
        for key, part in attributes.items():
            inner = part
            if isinstance(part, (staticmethod, classmethod, property)):
                inner = part.fget if isinstance(part, property) else part.__func__
            if isinstance(inner, FunctionType) and _is_written(inner):
                self._enter(inner, f"{cls.__name__}.{key}")
                self._methods.append((attributes, key, part, f"the method {cls.__name__}.{key}"))
            elif not key.startswith("__"):
                self._item(self.found.items, attributes, key, part, f"the attribute {name}.{key}")
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
        for state, name in self._tagged if "tag" in self._loaded else ():
            self._item(self.found.items, Slots(state), "tag", state.tag, f"{name}.tag")
        for attributes, key, part, name in self._methods:
            if key in self._loaded or key in _CALLED_BY_OPERATORS:
                self._item(self.found.items, attributes, key, part, name)
        for into, attributes, name in self._owners:
            missing = frozenset(self._loaded.difference(attributes))
            if missing:
                into.append((attributes.keys(), missing, name))

    def _attribute(self, owner: Mapping[str, Any] | Slots, key: str, name: str) -> None:
        part = owner[key]
        if not isinstance(owner, MappingProxyType):  # those of classes are watched already
            self._item(self.found.items, owner, key, part, name)
        if not isinstance(part, (FunctionType, staticmethod, classmethod, property)):
            self._enter(part, name)

    def _state(self, state: State, name: str) -> None:
        """Its arrays are looked after by the calls, and its structure too if it has any."""
        if all(state.structure.statics):
            self.found.states.append((state, state.structure))
        if type(state) in (State, ParamState):
            self._tagged.append((state, name))
            return
        self._enter(type(state), type(state).__name__)
        for attributes in (Slots(state), getattr(state, "__dict__", None)):
            if attributes:
                self._attributes.append((attributes, name))

    def _object(self, value: Any, name: str) -> None:
        """An instance: the attributes of a Module are watched together, those of others one by one."""
        own = getattr(value, "__dict__", None)
        for part in (own.get("__wrapped__"), *own.get("also_reads", ())) if own else ():
            if part is not None:
                self._enter(part, name)
        for cls in type(value).__mro__:
            self._enter(cls, cls.__name__)
        counted = getattr(type(value), "attributes_are_counted", False)
        into = self.found.module_items if counted else self.found.items
        module = sys.modules.get(type(value).__module__)
        if counted or isinstance(value, SimpleNamespace) or _of_users(module):
            if own is not None and _is_frozen(type(value)):
                for key, part in own.items():
                    self._enter(part, f"{name}.{key}")
            elif own is not None:
                self._mapping(own, name, into, "{}.{}")
                self._owners.append((self.found.module_absent if counted else self.found.absent, own, name))
            self._mapping(Slots(value), name, self.found.items, "{}.{}")
        elif own:
            self._attributes.append((own, name))
            parts = [*own.values()]
            for part in parts if isinstance(value, (UserDict, UserList, ChainMap)) else _functions_in(parts):
                self._enter(part, name)
        if isinstance(value, defaultdict):
            self._enter(value.default_factory, f"the default of {name}")


def _is_frozen(cls: type) -> bool:
    """Whether no attribute of its instances can be set: those of a frozen dataclass."""
    params = vars(cls).get("__dataclass_params__")
    return params is not None and params.frozen


def _content(cell: Any) -> Any:
    """What stands in a closure's cell; `MISSING` if it is not bound yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _functions_in(parts: Iterable[Any]) -> Iterator[Any]:
    """What a library may call of what it holds: functions, and those in tuples."""
    for part in parts:
        if isinstance(part, _FUNCTIONS):
            yield part
        elif isinstance(part, tuple):
            yield from _functions_in(part)


def _is_written(method: FunctionType) -> bool:
    """Whether somebody has written a method: those that dataclasses make read nothing that changes."""
    return method.__code__.co_filename != "<string>" or not method.__name__.startswith("__")


def _of_users(module: ModuleType | None) -> bool:
    """Whether a module is the user's: also one without a file, as in a notebook."""
    if getattr(module, "__name__", None) in sys.builtin_module_names:
        return False
    return _is_users(getattr(module, "__file__", None) or "")


@functools.cache
def _is_users(file: str) -> bool:
    return is_user_file(file) and not file.startswith(_libraries())


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Where Python's own modules and installed ones lie; asking takes milliseconds."""
    return tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
