"""Element types: every dtype of jax, and its PRNG key types."""

from collections.abc import Iterator
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from .errors import IRTypeError


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    """An element type; there is one object per type, so identity is equality.

    `kind` is one of "b" (bool), "i" (signed), "u" (unsigned), "f" (real), "c" (complex), "k" (PRNG key).
    `numpy` is the NumPy dtype, or None for keys, whose arrays only jax can hold.
    """

    name: str
    kind: str
    numpy: np.dtype | None

    @property
    def differentiable(self) -> bool:
        """Whether values of this type have tangents."""
        return self.kind in "fc"

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"dtype({self.name})"

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return dtype, (self.name,)


def _standard() -> Iterator[DType]:
    yield DType("bool", "b", np.dtype(np.bool_))
    for bits in (8, 16, 32, 64):
        yield DType(f"i{bits}", "i", np.dtype(f"int{bits}"))
        yield DType(f"u{bits}", "u", np.dtype(f"uint{bits}"))
    for bits in (16, 32, 64):
        yield DType(f"f{bits}", "f", np.dtype(f"float{bits}"))
    yield DType("c64", "c", np.dtype(np.complex64))
    yield DType("c128", "c", np.dtype(np.complex128))
    yield DType("bf16", "f", np.dtype(ml_dtypes.bfloat16))
    for name in ("int2", "int4", "uint2", "uint4"):
        short = name.replace("uint", "u").replace("int", "i")
        yield DType(short, name[0], np.dtype(getattr(ml_dtypes, name)))
    for name in vars(ml_dtypes):
        if name.startswith(("float8_", "float4_", "float6_")):
            yield DType(name.replace("float", "f", 1), "f", np.dtype(getattr(ml_dtypes, name)))


_BY_NAME = {d.name: d for d in _standard()}
_BY_NUMPY = {d.numpy: d for d in _BY_NAME.values()}


def dtype(name: str) -> DType:
    """The element type of that name: `f32`, `bf16`, `bool`, `c64`, `f8_e4m3fn`, `key<fry>`, …

    Raises:
        IRTypeError: there is no such type.
    """
    found = _BY_NAME.get(name)
    if found is None:
        if not (name.startswith("key<") and name.endswith(">") and name[4:-1].isidentifier()):
            known = ", ".join(_BY_NAME)
            raise IRTypeError(f"there is no element type {name!r}; known are {known} and key<impl>")
        found = _BY_NAME.setdefault(name, DType(name, "k", None))
    return found


def dtype_of(numpy_dtype: object) -> DType:
    """The element type of a NumPy (or ml_dtypes) dtype.

    Raises:
        IRTypeError: jax has no such type (strings, objects, dates, …).
    """
    found = _BY_NUMPY.get(np.dtype(numpy_dtype))  # pyright: ignore[reportArgumentType, reportCallIssue]
    if found is None:
        raise IRTypeError(f"NumPy's {np.dtype(numpy_dtype)} is not an element type of jax")  # pyright: ignore[reportArgumentType, reportCallIssue]
    return found


def is_element_type(numpy_dtype: object) -> bool:
    """Whether a NumPy dtype is that of an element type."""
    return numpy_dtype in _BY_NUMPY


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype that NumPy calls by that name, if it is an element type: `float32`, `bfloat16`.

    Raises:
        IRTypeError: there is none.
    """
    found = _NUMPY_NAMES.get(name)
    if found is None:
        raise IRTypeError(f"there is no element type that NumPy calls {name}")
    return found


_NUMPY_NAMES = {d.numpy.name: d.numpy for d in _BY_NAME.values() if d.numpy is not None}

BOOL, I32, F32, F64 = dtype("bool"), dtype("i32"), dtype("f32"), dtype("f64")
