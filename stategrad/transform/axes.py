"""Which axis of each array is mapped: JAX's `in_axes` and `out_axes`, checked and resolved leaf by leaf."""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategrad.errors import TraceError

from .selection import shown_tree


def _is_none(node: Any) -> bool:
    return node is None


def leaf_axes(axes: Any, tree: Any, what: str) -> list[int | None]:
    """For each leaf of a pytree the axis that a prefix of it names; None for no axis.

    Raises:
        TraceError: the prefix has another structure, or an axis is no integer.
    """
    nothing = tree.unflatten([_LEAF] * tree.num_leaves)
    try:
        spread = jax.tree.map(
            lambda axis, part: jax.tree.map(lambda _: _Of(axis), part), axes, nothing, is_leaf=_is_none
        )
    except (TypeError, ValueError):
        raise TraceError(
            f"{what} = {axes!r} does not fit: expected an axis, None, or a prefix of {shown_tree(tree)}"
        ) from None
    return [_checked(leaf.axis, what) for leaf in jax.tree.leaves(spread)]


def resolved(
    axes: Sequence[int | None], arrays: Sequence[Any], names: Sequence[str], what: str
) -> list[int | None]:
    """The axes as non-negative numbers.

    Raises:
        TraceError: an array has no such axis.
    """
    found = []
    for axis, array, name in zip(axes, arrays, names, strict=True):
        rank = jnp.ndim(array)
        if axis is not None and not -rank <= axis < rank:
            raise TraceError(f"{what} maps axis {axis} of {name}, which has {rank} axes")
        found.append(axis if axis is None else axis % rank)
    return found


def common_size(lengths: Sequence[tuple[str, int]], axis_size: int | None) -> int:
    """The length of the mapped axis.

    Args:
        lengths: what each mapped array is called, and how long it is.

    Raises:
        TraceError: they differ, or there are none and `axis_size` is not given.
    """
    found = ([] if axis_size is None else [("axis_size", axis_size)]) + list(lengths)
    if not found:
        raise TraceError("vmap maps nothing: give an axis in in_axes, a State in in_states, or axis_size")
    name, size = found[0]
    for other, length in found[1:]:
        if length != size:
            raise TraceError(f"vmap maps axes of different lengths: {name} has {size}, {other} has {length}")
    return size


_LEAF = object()


class _Of:
    """An axis, None too, as a leaf of a pytree."""

    def __init__(self, axis: Any) -> None:
        self.axis = axis


def _checked(axis: Any, what: str) -> int | None:
    if axis is None:
        return None
    try:
        return operator.index(axis)
    except TypeError:
        raise TraceError(f"{what} must hold integers and None, not {axis!r}") from None
