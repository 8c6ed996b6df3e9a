"""Attribute values and their text.

    true  none  3  0x1f  0.5  inf  (1.0, -2.0)  "text"  [1, [2, 3]]  $cell  @function
    f32[2,3]  bf16         types and element types        numpy.float32  NumPy's
    f32[2] [1.0, 2.0]      a NumPy array        f32[] 0.5      a NumPy scalar
    opaque"relu#3@5f0c…"   an object without a text; see `Opaque`

Sequences are tuples. What repeats or goes without saying is not written: the attributes `type`, `to` and
`shape` where they are the type of the only result, its element type and its shape, and those that have the
default value of the row. A `value` beside an unwritten `type` is data of that type: `{value = [1.0]}`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .core import Cell, Function, Type
from .dtypes import F64, DType, dtype_of, is_element_type
from .literals import array_text, int_text, scalar_text, string_text
from .opaque import Opaque, opaque_token
from .opdef import OpDef

NameOf = Callable[[Cell | Function], str]


_OF_RESULT: dict[str, Callable[[Type], Any]] = {
    "type": lambda of: of,
    "to": lambda of: of.dtype,
    "shape": lambda of: of.shape,
}


def unwritten(opdef: OpDef, types: Sequence[Type]) -> Mapping[str, Any]:
    """What the attributes that are not written are, in an operation with these result types."""
    names = getattr(opdef, "attribute_names", ())
    if len(types) != 1 or _OF_RESULT.keys().isdisjoint(names):
        return opdef.defaults
    return {**opdef.defaults, **{name: of(types[0]) for name, of in _OF_RESULT.items() if name in names}}


def has_implied_type(opdef: OpDef, types: Sequence[Type], attributes: Mapping[str, Any]) -> bool:
    """Whether an operation with these result types leaves out its attribute `type`."""
    return (
        len(types) == 1
        and "type" in getattr(opdef, "attribute_names", ())
        and ("type" not in attributes or attributes["type"] == types[0])
    )


def value_text(value: Any, name_of: NameOf) -> str:
    """The text of an attribute's value; `name_of` gives `$cell` and `@function`."""
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    if isinstance(value, (Cell, Function)):
        return name_of(value)
    if type(value) in (tuple, list):
        return f"[{', '.join([value_text(v, name_of) for v in value])}]"
    if isinstance(value, np.dtype) and is_element_type(value):
        return f"numpy.{value.name}"
    array = _as_array(value)
    if array is None:
        return f'opaque"{opaque_token(value)}"'
    return f"{Type.of(array)} {array_text(array, dtype_of(array.dtype))}"


def data_text(value: Any, type: Type, name_of: NameOf) -> str:
    """The text of a value beside an implied `type`."""
    array = _as_array(value)
    if type.dtype.numpy is None or array is None or array.shape not in ((), type.shape):
        return value_text(value, name_of)
    if array.dtype != type.dtype.numpy:
        if not _converts(array, type.dtype):
            return f"{Type.of(array)} {array_text(array, dtype_of(array.dtype))}"
        array = _cast(array, type.dtype)
    return array_text(array, type.dtype)


_ORDER = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 3}


def _converts(array: np.ndarray, wanted: DType) -> bool:
    """Whether a constant of another type is the same number as one of the wanted type, up to rounding."""
    given = _ORDER[dtype_of(array.dtype).kind]
    if given == _ORDER[wanted.kind] == 1:
        return bool(np.all(_cast(array, wanted) == array))
    return given <= _ORDER[wanted.kind]


def _cast(array: np.ndarray, wanted: DType) -> np.ndarray:
    with np.errstate(all="ignore"):
        return array.astype(wanted.numpy)


def _as_array(value: Any) -> np.ndarray | None:
    """The value as an array of an element type of ours, if it is one."""
    if not hasattr(type(value), "__array__") and type(value) not in (bool, int, float, complex):
        return None
    try:
        array = np.asarray(value)
        dtype_of(array.dtype)
    except (TypeError, ValueError):  # PRNG keys, tracers; strings, dates, objects
        return None
    return array


def _float_text(value: float) -> str:
    text = repr(value)
    if text != "nan" or np.float64(value).tobytes() == _NAN:
        return text
    return f"f64[] {scalar_text(value, F64)}"


def _complex_text(value: complex) -> str:
    return f"({scalar_text(value.real, F64)}, {scalar_text(value.imag, F64)})"


_NAN = np.float64("nan").tobytes()
_WRITERS: dict[type, Callable[[Any], str]] = {
    int: int_text,
    bool: lambda value: "true" if value else "false",
    float: _float_text,
    complex: _complex_text,
    str: string_text,
    type(None): lambda _: "none",
    Type: str,
    DType: str,
    Opaque: lambda value: f'opaque"{value.token}"',
}
