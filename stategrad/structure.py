"""The fixed part of a State's value: its pytree structure and the leaves that are not arrays."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .errors import StateError

_NUMBERS = (bool, int, float, complex, np.generic, np.ndarray)


class Static:
    """A leaf that is no array, such as an activation function inside an equinox module: part of the
    structure.
    """

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static):
            return False
        return self.value is other.value or (
            type(self.value) is type(other.value) and self.value == other.value
        )

    def __hash__(self) -> int:
        return hash(type(self.value))

    def __repr__(self) -> str:
        return repr(self.value)


class Structure:
    """A pytree structure with its static leaves; equal ones build equal values from equal arrays."""

    __slots__ = ("_hash", "single", "statics", "tree")

    def __init__(self, tree: Any, statics: tuple[Static | None, ...]) -> None:
        self.tree = tree
        self.statics = statics
        self.single = tree == _LEAF and statics == (None,)
        self._hash = hash((tree, statics))

    def build(self, arrays: Sequence[Any], statics: bool = True) -> Any:
        """The value with these arrays in its array leaves; without `statics`, None stands for the other
        leaves.
        """
        if self.single:
            return arrays[0]
        each = iter(arrays)
        rest = (s.value if s is not None and statics else None for s in self.statics)
        return self.tree.unflatten(
            [next(each) if s is None else r for s, r in zip(self.statics, rest, strict=True)]
        )

    def leaf_names(self) -> list[str]:
        """For each array leaf its path as text: `.a.0.weight`, or nothing for a State that is one array."""
        if self.single:
            return [""]
        paths, _ = jax.tree_util.tree_flatten_with_path(self.tree.unflatten(range(len(self.statics))))
        return [_dotted(path) for (path, _), s in zip(paths, self.statics, strict=True) if s is None]

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Structure) and self.tree == other.tree and self.statics == other.statics
        )

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return str(self.tree).removeprefix("PyTreeDef(").removesuffix(")")


_LEAF = jax.tree.structure(0)


def _dotted(path: Sequence[Any]) -> str:
    keys = (getattr(k, "key", getattr(k, "name", getattr(k, "idx", k))) for k in path)
    return "".join(f".{k}" for k in keys)


def split(value: Any, name: str) -> tuple[list[Any], Structure]:
    """The array leaves of a value (arrays, tracers, numbers) and its structure.

    Raises:
        StateError: the value contains a State.
    """
    leaves, tree = jax.tree.flatten(value)
    arrays, statics = [], []
    for leaf in leaves:
        if isinstance(leaf, (jax.Array, *_NUMBERS)) or hasattr(leaf, "__jax_array__"):
            arrays.append(leaf)
            statics.append(None)
        else:
            if hasattr(leaf, "stored_leaf"):
                raise StateError(
                    f"the State {name!r} is given another State ({leaf!r}) to hold; give it {leaf.name}.value"
                )
            statics.append(Static(leaf))
    return arrays, Structure(tree, tuple(statics))
