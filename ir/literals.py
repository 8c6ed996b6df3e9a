"""Numbers and arrays as text: exact both ways, the shortest digits that give the same number back.

A float whose digits would not give it back (a NaN with payload or sign) is written as its bits, `0xffc00000`.
Small arrays are nested lists, larger ones `base64"…"` of their bytes, little-endian, row by row.
"""

import base64
import binascii
import math
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

from .dtypes import DType
from .errors import IRError

LISTED = 32
"""Arrays of at most so many elements are written as lists."""


class LiteralError(IRError, ValueError):
    """A literal does not fit its type."""


# ------------------------------------------------------------------------------------------------ to text
def int_text(value: int) -> str:
    """Decimal digits; hexadecimal ones where Python would refuse to print or read so many."""
    return str(value) if value.bit_length() <= 1024 else hex(value)


def string_text(value: str) -> str:
    """The string in double quotes, with escapes for what would not survive a text file."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return f'"{value}"'
    return (
        '"'
        + "".join(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}") for c in value)
        + '"'
    )


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def array_text(array: np.ndarray, dtype: DType) -> str:
    """The elements of an array of that element type: one scalar, nested lists, or a blob."""
    write = _writer(dtype)
    if array.ndim == 0:
        return write(array[()])
    if array.size > LISTED or (array.size == 0 and array.ndim > 1):
        return f'base64"{base64.b64encode(_little_endian(array)).decode()}"'
    return _nested(array, write)


def _nested(array: np.ndarray, write: Callable[[Any], str]) -> str:
    if array.ndim == 0:
        return write(array[()])
    return f"[{', '.join([_nested(a, write) for a in array])}]"


def _little_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes(order="C")


def scalar_text(value: Any, dtype: DType) -> str:
    """One element of that type."""
    return _writer(dtype)(value)


@cache
def _writer(dtype: DType) -> Callable[[Any], str]:
    if dtype.kind == "b":
        return lambda x: "true" if x else "false"
    if dtype.kind in "iu":
        return lambda x: str(int(x))
    if dtype.kind == "c":
        part = _float_writer(_component(dtype.numpy))
        return lambda x: f"({part(x.real)}, {part(x.imag)})"
    return _float_writer(dtype.numpy)


def _component(dtype: Any) -> np.dtype:
    return np.dtype(np.float32 if dtype == np.complex64 else np.float64)


def _float_writer(dtype: Any) -> Callable[[Any], str]:
    digits = str if dtype.type in (np.float16, np.float32, np.float64) else _fewest_digits

    def write(x: Any) -> str:
        x = dtype.type(x)
        text = digits(x)
        back = dtype.type(float(text))
        # Comparing bits tells -0.0 from 0.0 and one NaN from another.
        return text if back.tobytes() == x.tobytes() else hex(_bits(x, dtype))

    return write


def _fewest_digits(x: Any) -> str:
    wide = float(x)
    if not math.isfinite(wide):
        return str(wide)
    for digits in range(1, 18):
        text = f"{wide:.{digits}g}"
        if type(x)(float(text)) == x:
            return text if set(text) & set(".e") else f"{text}.0"
    return repr(wide)


def _bits(x: Any, dtype: np.dtype) -> int:
    return int.from_bytes(x.tobytes(), sys.byteorder)


# ------------------------------------------------------------------------------------------------ from text
def read_int(text: str) -> int:
    """The integer that `int_text` wrote.

    Raises:
        LiteralError: it has too many digits.
    """
    try:
        return int(text, 0) if "x" in text else int(text)
    except ValueError:
        raise LiteralError(f"{len(text)} digits are too many: write the number in hexadecimal") from None


def read_string(text: str) -> str:
    """The string that `string_text` wrote, quotes included.

    Raises:
        LiteralError: there is an unknown escape.
    """
    if "\\" not in text:
        return text[1:-1]
    parts: list[str] = []
    i, end = 1, len(text) - 1
    while i < end:
        if text[i] != "\\":
            parts.append(text[i])
            i += 1
        elif text[i + 1] == "u":
            close = text.find("}", i)
            parts.append(_code_point(text[i + 2 : close + 1]))
            i = close + 1
        else:
            parts.append(_unescape(text[i : i + 2]))
            i += 2
    return "".join(parts)


_UNESCAPES = {escape: char for char, escape in _ESCAPES.items()}


def _unescape(escape: str) -> str:
    if escape not in _UNESCAPES:
        raise LiteralError(f'there is no escape {escape}; there are \\" \\\\ \\n \\t \\r and \\u{{1f600}}')
    return _UNESCAPES[escape]


def _code_point(braced: str) -> str:
    try:
        if not (braced.startswith("{") and braced.endswith("}") and 3 <= len(braced) <= 8):
            raise ValueError
        return chr(int(braced[1:-1], 16))
    except (ValueError, OverflowError):
        raise LiteralError("an escape of a character is written \\u{1f600}") from None


def read_number(text: str, dtype: DType) -> Any:
    """A number of that element type as a NumPy scalar: digits, `inf`, `nan`, or bits as `0x7fc00000`.

    Raises:
        LiteralError: it is not such a number, or out of range.
    """
    if dtype.numpy is None or dtype.kind in "bc":
        raise LiteralError(f"{text} is not a {dtype}")
    kind = dtype.numpy.type
    if dtype.kind == "f":
        return read_float(text, dtype.numpy)
    if "x" not in text and not text.lstrip("-").isdigit():
        raise LiteralError(f"{text} is not an integer, and the element type is {dtype}")
    value, bounds = read_int(text), ml_dtypes.iinfo(kind)
    if not int(bounds.min) <= value <= int(bounds.max):
        raise LiteralError(f"{text} is out of the range of {dtype}")
    return kind(value)


def read_complex(real: str, imaginary: str, dtype: DType) -> Any:
    """A complex number from the texts of its parts.

    Raises:
        LiteralError: they are no numbers, or the element type is not complex.
    """
    if dtype.kind != "c" or dtype.numpy is None:
        raise LiteralError(f"({real}, {imaginary}) is a complex number, not a {dtype}")
    component = _component(dtype.numpy)
    parts = np.array([read_float(real, component), read_float(imaginary, component)], component)
    return parts.view(dtype.numpy)[0]  # a sum would lose the sign of zeros and the bits of NaNs


def read_float(text: str, dtype: np.dtype) -> Any:
    """A float of that NumPy dtype.

    Raises:
        LiteralError: it is not a number, or out of range.
    """
    if "x" in text:
        return _from_bits(read_int(text), dtype)
    try:
        wide = float(text)
    except ValueError:
        raise LiteralError(f"{text} is not a number") from None
    with np.errstate(all="ignore"):
        found = dtype.type(wide)
    kept = math.isfinite(float(found)) if math.isfinite(wide) else str(float(found)) == str(wide)
    if not kept or (math.isinf(wide) and text.lstrip("-") != "inf"):
        raise LiteralError(f"{text} is out of the range of {dtype}")
    return found


def _from_bits(bits: int, dtype: np.dtype) -> Any:
    if not 0 <= bits < 1 << (8 * dtype.itemsize):
        raise LiteralError(f"{bits:#x} is not the bits of a {dtype}")
    return np.frombuffer(bits.to_bytes(dtype.itemsize, sys.byteorder), dtype)[0]


def read_blob(text: str, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
    """The array whose base64 text is given.

    Raises:
        LiteralError: the text is not base64, or of another number of bytes than the type needs.
    """
    if dtype.numpy is None:
        raise LiteralError(f"arrays of {dtype} cannot be written as base64")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as e:
        raise LiteralError(f"this is not base64: {e}") from None
    wanted = math.prod(shape) * dtype.numpy.itemsize
    if len(data) != wanted:
        raise LiteralError(f"the array needs {wanted} bytes, and here are {len(data)}")
    try:
        array = np.frombuffer(data, dtype.numpy.newbyteorder("<")).astype(dtype.numpy).reshape(shape)
    except (ValueError, OverflowError) as e:
        raise LiteralError(f"NumPy has no array of shape {shape}: {e}") from None
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise LiteralError("a bool is stored as byte 0 or 1")
    array.flags.writeable = False
    return array
