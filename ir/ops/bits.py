"""Logic and bits of booleans and integers."""

from typing import Any

import numpy as np

from ..core import Type
from ..derivatives import Zero
from ..errors import IRTypeError
from ..opdef import row, sample
from .common import alike, batch, in_numpy

_NO_TANGENTS = Zero("integers and truth values have no tangents")


# ------------------------------------------------------------------------------------------ and, or, xor, not
for _name, _doc, _evaluate in (
    ("and", "Both; of integers, bit by bit.", np.bitwise_and),
    ("or", "One or both; of integers, bit by bit.", np.bitwise_or),
    ("xor", "One but not both; of integers, bit by bit.", np.bitwise_xor),
    ("not", "The opposite; of integers, bit by bit.", np.bitwise_not),
):
    _arity = 1 if _name == "not" else 2
    row(
        name=_name,
        doc=_doc,
        type_rule=alike("biu", _arity),
        evaluate=in_numpy(_evaluate),
        derivative=_NO_TANGENTS,
        batch=batch,
        lower=_name,
        samples=tuple(
            sample(*[of] * _arity, ints=(0, 127)) for of in ("bool[2,3]", "bool[]", "i32[4]", "u8[4]")
        ),
    )


# ------------------------------------------------------------------------------------------ shifts and counts
def _whole_bytes(arity: int) -> Any:
    alike_integers = alike("iu", arity)

    def rule(*types: Type) -> Type:
        found = alike_integers(*types)
        if found.dtype.name in ("i2", "u2", "i4", "u4"):
            raise IRTypeError(f"takes integers of whole bytes, not {found}: convert it to i8 or u8 first")
        return found

    return rule


def _bits(x: Any) -> int:
    return 8 * x.dtype.itemsize


def _unsigned(x: Any) -> Any:
    return x.view(f"u{x.dtype.itemsize}")


def _shift(amounts: Any, shifted: Any, beyond: Any) -> Any:
    """`shifted` by less than all bits; `beyond` where the amount, read as unsigned, is more."""
    return np.where(_unsigned(amounts) < _bits(amounts), shifted, beyond)


def _amounts(y: Any) -> Any:
    return np.where(_unsigned(y) < _bits(y), y, 0).astype(y.dtype)


def _shift_left(x: Any, y: Any) -> Any:
    return _shift(y, np.left_shift(x, _amounts(y)), np.zeros_like(x))


def _shift_right_logical(x: Any, y: Any) -> Any:
    shifted = np.right_shift(_unsigned(x), _unsigned(_amounts(y))).view(x.dtype)
    return _shift(y, shifted, np.zeros_like(x))


def _shift_right_arithmetic(x: Any, y: Any) -> Any:
    signed = x.view(f"i{x.dtype.itemsize}")
    amounts = _amounts(y).view(signed.dtype)
    beyond = np.right_shift(signed, signed.dtype.type(_bits(x) - 1))
    return _shift(y, np.right_shift(signed, amounts).view(x.dtype), beyond.view(x.dtype))


for _name, _doc, _evaluate in (
    ("shift_left", "x · 2 to the y; 0 for y of as many bits as x has, or more.", _shift_left),
    ("shift_right_logical", "The bits of x moved down by y, with zeros coming in.", _shift_right_logical),
    (
        "shift_right_arithmetic",
        "The bits of x moved down by y, with its highest one coming in.",
        _shift_right_arithmetic,
    ),
):
    row(
        name=_name,
        doc=_doc,
        type_rule=_whole_bytes(2),
        evaluate=in_numpy(_evaluate),
        derivative=_NO_TANGENTS,
        batch=batch,
        lower=_name,
        samples=(
            sample("i32[9]", "i32[9]", ints=(-5, 40)),
            sample("u8[9]", "u8[9]", ints=(0, 255)),
            sample("i8[2,3]", "i8[2,3]", ints=(-3, 9)),
        ),
    )


def _leading_zeros(x: Any) -> Any:
    left, used = _unsigned(x), np.zeros_like(x)
    for k in range(_bits(x)):
        used += np.right_shift(left, left.dtype.type(k)) != 0
    return (_bits(x) - used).astype(x.dtype)


for _name, _doc, _evaluate, _lower in (
    (
        "population_count",
        "The number of bits that are 1.",
        lambda x: np.bitwise_count(_unsigned(x)).astype(x.dtype),
        "popcnt",
    ),
    ("clz", "The number of zeros before the highest bit that is 1.", _leading_zeros, "count_leading_zeros"),
):
    row(
        name=_name,
        doc=_doc,
        type_rule=_whole_bytes(1),
        evaluate=in_numpy(_evaluate),
        derivative=_NO_TANGENTS,
        batch=batch,
        lower=_lower,
        samples=(
            sample("i32[4]", ints=(-3, 1000)),
            sample("u8[2,3]", ints=(0, 255)),
            sample("i8[3]", ints=(-9, 9)),
        ),
    )
