"""Axes: what type rules check about them, and where the batching rules put the batch axis (always first)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Type, Value
from ..dtypes import dtype_of
from ..errors import IRTypeError

if TYPE_CHECKING:
    from ..build import Builder

Ints = tuple[int, ...]


def check_axes(axes: Sequence[int], rank: int, what: str = "axes", *, increasing: bool = False) -> None:
    """Demands different axes of an array of that rank.

    Raises:
        IRTypeError: an axis is out of range, occurs twice, or stands in the wrong place.
    """
    if any(not 0 <= a < rank for a in axes) or len(set(axes)) != len(axes):
        raise IRTypeError(f"{what} = {list(axes)} must be different numbers from 0 to {rank - 1}")
    if increasing and list(axes) != sorted(axes):
        raise IRTypeError(f"{what} = {list(axes)} must be in increasing order")


def check_lengths(rank: int, **attributes: Sequence[Any]) -> None:
    """Demands one entry per axis.

    Raises:
        IRTypeError: an attribute is too short or too long.
    """
    for name, found in attributes.items():
        if len(found) != rank:
            raise IRTypeError(f"{name} = {list(found)} must have one entry for each of {rank} axes")


def others(rank: int, *without: Sequence[int]) -> Ints:
    """The axes of an array of that rank, without the given ones."""
    gone = {a for axes in without for a in axes}
    return tuple(a for a in range(rank) if a not in gone)


def shifted(axes: Sequence[int]) -> Ints:
    """The same axes after a batch axis has come in front of them."""
    return tuple(a + 1 for a in axes)


def inverse(permutation: Sequence[int]) -> Ints:
    """The permutation that undoes the given one."""
    return tuple(sorted(range(len(permutation)), key=permutation.__getitem__))


def batch_size(operands: Sequence[Value], batched: Sequence[bool]) -> int:
    """The length of the batch axis."""
    return next(x.type.shape[0] for x, flag in zip(operands, batched, strict=True) if flag)


def with_batch_axis(b: "Builder", x: Value, size: int) -> Value:
    """`size` copies of `x` along a new leading axis."""
    return b.broadcast(x, shape=(size, *x.type.shape), dimensions=tuple(range(1, x.type.rank + 1)))


def all_batched(b: "Builder", operands: Sequence[Value], batched: Sequence[bool]) -> list[Value]:
    """The operands, each with a leading batch axis."""
    size = batch_size(operands, batched)
    return [x if flag else with_batch_axis(b, x, size) for x, flag in zip(operands, batched, strict=True)]


def moved_to_front(b: "Builder", x: Value, axis: int) -> Value:
    """`x` with one axis brought to the front."""
    if axis == 0:
        return x
    return b.transpose(x, permutation=(axis, *others(x.type.rank, (axis,))))


def reshaped(b: "Builder", x: Value, shape: Sequence[int]) -> Value:
    """`x` in another shape; `x` itself where it has that shape."""
    return x if x.type.shape == tuple(shape) else b.reshape(x, shape=tuple(shape))


def transposed(b: "Builder", x: Value, permutation: Sequence[int]) -> Value:
    """`x` with its axes permuted; `x` itself where nothing moves."""
    same = list(permutation) == list(range(x.type.rank))
    return x if same else b.transpose(x, permutation=tuple(permutation))


def hidden_axes(hlo: Any, type: Type) -> Ints:
    """The trailing axes that an array has in StableHLO only: PRNG keys are rows of integers there."""
    return tuple(hlo.mlir_type(type).shape)[type.rank :] if type.dtype.kind == "k" else ()


def accumulator(of: Any) -> np.dtype:
    """The NumPy type to sum in: a short float is summed as f32 and rounded at the end, as XLA does."""
    return np.dtype(np.float32) if dtype_of(of).kind == "f" and np.dtype(of).itemsize < 4 else np.dtype(of)


def own(x: Any) -> Any:
    """A NumPy array that shares no memory; anything else as it is (only jax can hold arrays of PRNG keys)."""
    return np.array(x) if isinstance(x, (np.ndarray, np.generic)) else x
