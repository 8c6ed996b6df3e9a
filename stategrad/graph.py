"""Finding the States inside an object, each by the path that leads to it."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar, overload

import jax
import numpy as np

from .filters import Filter, Path, to_predicate
from .state import State

T = TypeVar("T")

METHODS = "__stategrad_methods__"
"""The attribute in which an object keeps its transformed methods; what it holds is no part of the object."""


class FlatStates(dict[Path, T]):
    """What belongs to each State (the State itself, its gradient, …) by its path, in the order of the object.

    A pytree whose children are the values.
    """

    def to_nested(self) -> "NestedStates[T]":
        """The same as mappings inside mappings, one level a path element.

        Raises:
            ValueError: one path is empty, or leads on from where another one ends.
        """
        nested: NestedStates[T] = NestedStates()
        for path, value in self.items():
            inner: Any = nested
            for key in path[:-1]:
                inner = inner.setdefault(key, NestedStates()) if isinstance(inner, NestedStates) else None
            if not path or not isinstance(inner, NestedStates) or path[-1] in inner:
                raise ValueError(f"the path {path} is empty or leads on from where another one ends")
            inner[path[-1]] = value
        return nested

    def __repr__(self) -> str:
        return _listing(self)


class NestedStates(dict[Any, "T | NestedStates[T]"]):
    """The same as `FlatStates`, but one mapping inside another: `nested["layers"][0]["weight"]`. A pytree."""

    def to_flat(self) -> FlatStates[T]:
        """The same keyed by whole paths."""
        return FlatStates(_flat(self, ()))

    def __repr__(self) -> str:
        return _listing(self)


def _flat(nested: NestedStates[Any], path: Path) -> Iterator[tuple[Path, Any]]:
    for key, value in nested.items():
        if isinstance(value, NestedStates):
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value


def _listing(mapping: Mapping[Any, Any]) -> str:
    lines = [f"{key!r}: {value!r}".replace("\n", "\n  ") for key, value in mapping.items()]
    return "{\n" + "".join(f"  {line},\n" for line in lines) + "}" if lines else "{}"


def _register(cls: type[dict[Any, Any]]) -> None:
    # As a subclass of dict it would be a leaf; as a plain dict, paths of mixed types could not be sorted.
    def children(node: dict[Any, Any]) -> tuple[list[Any], tuple[Any, ...]]:
        return [(jax.tree_util.DictKey(key), value) for key, value in node.items()], tuple(node)

    def build(keys: tuple[Any, ...], values: Iterable[Any]) -> Any:
        return cls(zip(keys, values, strict=True))

    jax.tree_util.register_pytree_with_keys(cls, children, build)


_register(FlatStates)
_register(NestedStates)

_CODE = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType)
_OPAQUE = (State, jax.Array, np.ndarray, np.generic, str, *_CODE)
"""What is not looked into."""


def children(node: Any) -> list[tuple[Any, Any]]:
    """What an object holds: (attribute name, key or position, what is there). Names come sorted.

    A transformed function holds what the function does that it was made from.
    """
    if isinstance(node, _OPAQUE):
        return []
    if isinstance(node, Mapping):
        items = list(node.items())
        return sorted(items) if all(isinstance(key, str) for key in node) else items
    if isinstance(node, list | tuple):
        return list(enumerate(node))
    if isinstance(node, functools.partial):
        return [("func", node.func), *enumerate(node.args), *sorted(node.keywords.items())]
    if getattr(type(node), "stands_for_its_function", False):
        return children(node.__wrapped__)
    return sorted(_attributes(node).items())


def _attributes(node: Any) -> dict[str, Any]:
    found = {
        name: getattr(node, name)
        for cls in type(node).__mro__
        for name in _slots(cls)
        if not name.startswith("__") and hasattr(node, name)
    }
    found |= getattr(node, "__dict__", {})
    found.pop(METHODS, None)
    return found


def _slots(cls: type) -> tuple[str, ...]:
    slots = cls.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def walk(node: Any) -> Iterator[tuple[Path, State]]:
    """Every State of an object, each once, with the first path that leads to it."""
    return _walk(node, (), {})


def _walk(node: Any, path: Path, seen: dict[int, Any]) -> Iterator[tuple[Path, State]]:
    if id(node) in seen:
        return
    if isinstance(node, State):
        seen[id(node)] = node
        yield path, node
        return
    inside = children(node)
    if inside:
        seen[id(node)] = node  # kept, so that its id is not given to another object
    for key, child in inside:
        yield from _walk(child, (*path, key), seen)


@overload
def states(node: Any, filter: Filter = ..., /) -> FlatStates[State]: ...
@overload
def states(node: Any, first: Filter, second: Filter, /, *rest: Filter) -> tuple[FlatStates[State], ...]: ...
def states(node: Any, *filters: Filter) -> FlatStates[State] | tuple[FlatStates[State], ...]:
    """The States of any object (modules, mappings, lists, objects with attributes), keyed by path.

    A State that is held in several places (tied weights) is listed once, where it is met first.

    Args:
        node: the object to look through.
        filters: none: all States. One: those that it selects. Several: one mapping for each, and a State goes
            to the first filter that selects it.

    Returns:
        A mapping from path tuples to States, or a tuple of such mappings if there are several filters.
    """
    predicates = [to_predicate(f) for f in filters] or [to_predicate(...)]
    groups = [FlatStates[State]() for _ in predicates]
    for path, state in walk(node):
        for predicate, group in zip(predicates, groups, strict=True):
            if predicate(path, state):
                group[path] = state
                break
    return tuple(groups) if len(groups) > 1 else groups[0]


@overload
def treefy_states(node: Any, filter: Filter = ..., /) -> NestedStates[State]: ...
@overload
def treefy_states(
    node: Any, first: Filter, second: Filter, /, *rest: Filter
) -> tuple[NestedStates[State], ...]: ...
def treefy_states(node: Any, *filters: Filter) -> NestedStates[State] | tuple[NestedStates[State], ...]:
    """As `states`, but as mappings inside mappings; `.to_flat()` keys them by whole paths."""
    found: Any = states(node, *filters)
    return tuple(group.to_nested() for group in found) if isinstance(found, tuple) else found.to_nested()
