"""Array types: one object for each."""

from collections.abc import Iterable
from math import prod
from operator import index
from typing import Any

from .dtypes import DType, dtype, dtype_of


class Type:
    """An array type: element type and shape. Printed `f32[4,4]`, a scalar `f32[]`.

    There is one object for each type, so identity is equality.

    Attributes:
        rank: the number of axes.
        size: the number of elements.
        differentiable: whether values of this type have tangents: real and complex numbers do, integers,
            booleans, keys do not.
    """

    __slots__ = ("differentiable", "dtype", "rank", "shape", "size")
    dtype: DType
    shape: tuple[int, ...]
    rank: int
    size: int
    differentiable: bool

    def __new__(cls, dtype: DType, shape: tuple[int, ...] = ()) -> "Type":
        return _TYPES.get((dtype, shape)) or _enter(dtype, shape)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"types are frozen: {name} of {self} cannot be set")

    def __reduce__(self) -> tuple[Any, ...]:
        return Type, (self.dtype, self.shape)

    def __repr__(self) -> str:
        return f"Type({self})"

    def with_shape(self, shape: Iterable[int]) -> "Type":
        return Type(self.dtype, tuple(shape))

    def with_dtype(self, to: DType) -> "Type":
        return Type(to, self.shape)

    def batched(self, size: int) -> "Type":
        """The type of `size` such arrays, stacked along a new leading axis."""
        return Type(self.dtype, (size, *self.shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @staticmethod
    def of(array: Any) -> "Type":
        """The type of a NumPy array or anything with a NumPy `dtype` and a `shape`."""
        return Type(dtype_of(array.dtype), tuple(array.shape))

    @staticmethod
    def parse(text: str) -> "Type":
        """The type that `str` prints: `Type.parse("f32[2,3]")`."""
        name, _, dims = text.strip().removesuffix("]").partition("[")
        return Type(dtype(name), tuple(int(d) for d in dims.split(",") if d.strip()))


_TYPES: dict[tuple[DType, tuple[int, ...]], Type] = {}


def _enter(dtype: DType, shape: tuple[int, ...]) -> Type:
    """The only object of a type that is new."""
    made = object.__new__(Type)
    lengths = tuple(map(index, shape))
    fields = {
        "dtype": dtype,
        "shape": lengths,
        "rank": len(lengths),
        "size": prod(lengths),
        "differentiable": dtype.differentiable,
    }
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return _TYPES.setdefault((dtype, made.shape), made)
