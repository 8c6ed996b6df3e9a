"""Rows without operands: constants and counting."""

from typing import Any, NoReturn

import numpy as np

from ..core import Operation, Type
from ..derivatives import Zero
from ..dtypes import dtype_of
from ..errors import IRError, IRTypeError
from ..opdef import row, sample
from .axes import check_axes
from .common import demand

_NOTHING_TO_DERIVE = Zero("it depends on nothing")


def _never_batched(b: Any, op: Operation, *_: Any) -> NoReturn:
    raise IRError(f"{op.name} has no operands: there is nothing to batch")


# ------------------------------------------------------------------------------------------------ constant
def _constant_type(*, value: Any, type: Type) -> Type:
    shape = getattr(value, "shape", ())
    if isinstance(value, (list, tuple, str, bytes)):
        raise IRTypeError("value must be a number or an array: put numpy.array(…) around it")
    if shape == ():
        return type
    if tuple(shape) != type.shape:
        raise IRTypeError(f"a value of shape {list(shape)} is no {type}")
    if type.dtype.kind != "k" and dtype_of(value.dtype) is not type.dtype:
        raise IRTypeError(f"a value of {dtype_of(value.dtype)} is no {type}: convert it first")
    return type


def _constant_evaluate(*, value: Any, type: Type) -> Any:
    if type.dtype.numpy is None:
        return value
    with np.errstate(all="ignore"):
        array = np.asarray(value).astype(type.dtype.numpy)
    return np.broadcast_to(array, type.shape).copy()


row(
    name="constant",
    doc="A fixed array; a scalar value fills the whole shape.",
    type_rule=_constant_type,
    evaluate=_constant_evaluate,
    derivative=_NOTHING_TO_DERIVE,
    batch=_never_batched,
    lower=lambda hlo, op: hlo.constant(op.attributes["value"], op.attributes["type"]),
    samples=(
        sample(value=1.5, type=Type.parse("f32[2,3]")),
        sample(value=np.arange(3, dtype=np.int32), type=Type.parse("i32[3]")),
        sample(value=True, type=Type.parse("bool[]")),
        sample(value=1 + 2j, type=Type.parse("c64[2]")),
        sample(value=0.1, type=Type.parse("bf16[2]")),
    ),
)


# ------------------------------------------------------------------------------------------------ iota
def _iota_type(*, type: Type, dimension: int) -> Type:
    demand("iufc", type)
    check_axes((dimension,), type.rank, "dimension")
    return type


def _iota_evaluate(*, type: Type, dimension: int) -> Any:
    steps = np.arange(type.shape[dimension]).astype(type.dtype.numpy)
    aligned = [1] * type.rank
    aligned[dimension] = -1
    return np.broadcast_to(steps.reshape(aligned), type.shape).copy()


row(
    name="iota",
    doc="0, 1, 2, … along one axis.",
    type_rule=_iota_type,
    evaluate=_iota_evaluate,
    derivative=_NOTHING_TO_DERIVE,
    batch=_never_batched,
    lower=lambda hlo, op: hlo.op("iota", [], [op.result.type], iota_dimension=op.attributes["dimension"]),
    samples=(
        sample(type=Type.parse("i32[4]"), dimension=0),
        sample(type=Type.parse("f32[2,3]"), dimension=1),
        sample(type=Type.parse("f32[0,3]"), dimension=0),
    ),
)
