"""Complex numbers. As in JAX, transposition is linear, not Hermitian: cotangents pair as Re(ct · v)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Jvp, Linear
from ..dtypes import dtype
from ..errors import IRTypeError
from ..opdef import Tangents, row, sample
from .common import alike, batch, component, demand, demand_same, in_numpy, itself, like

if TYPE_CHECKING:
    from ..build import Builder


def _part_type(x: Type) -> Type:
    demand("c", x)
    return x.with_dtype(component(x.dtype))


def _zero_part(b: "Builder", ct: Value) -> Value:
    return b.zeros(ct.type)


row(
    name="real",
    doc="The real part.",
    type_rule=_part_type,
    evaluate=in_numpy(np.real),
    derivative=itself(lambda b, ct: b.complex(ct, _zero_part(b, ct))),
    batch=batch,
    lower="real",
    samples=(sample("c64[2,3]"), sample("c128[2]")),
)
row(
    name="imag",
    doc="The imaginary part.",
    type_rule=_part_type,
    evaluate=in_numpy(np.imag),
    derivative=itself(lambda b, ct: b.complex(_zero_part(b, ct), b.neg(ct))),
    batch=batch,
    lower="imag",
    samples=(sample("c64[2,3]"), sample("c128[2]")),
)


# ------------------------------------------------------------------------------------------------ complex
def _complex_type(x: Type, y: Type) -> Type:
    demand("f", x)
    demand_same(x, y)
    if x.dtype.name not in ("f32", "f64"):
        raise IRTypeError(f"there are no complex numbers of {x.dtype}: convert to f32 first")
    return x.with_dtype(dtype("c64" if x.dtype.name == "f32" else "c128"))


def _complex_evaluate(x: Any, y: Any) -> Any:
    found = np.empty(x.shape, np.result_type(x.dtype, np.complex64))
    found.real, found.imag = x, y  # a sum would lose infinities and the sign of zeros
    return found


def _complex_transpose(b: "Builder", op: Operation, index: int, ct: Value, operands: Tangents) -> Value:
    return b.neg(b.imag(ct)) if index else b.real(ct)


row(
    name="complex",
    doc="x + iy.",
    type_rule=_complex_type,
    evaluate=in_numpy(_complex_evaluate),
    derivative=Linear("all", _complex_transpose),
    batch=batch,
    lower="complex",
    samples=(sample("f32[2,3]", "f32[2,3]"), sample("f32[]", "f32[]")),
)


# ------------------------------------------------------------------------------------------------ conj
def _lower_conj(hlo: Any, op: Operation, x: Any) -> Any:
    of = op.result.type
    part = of.with_dtype(component(of.dtype))
    (imaginary,) = hlo.op("negate", hlo.op("imag", [x], [part]), [part])
    return hlo.op("complex", [*hlo.op("real", [x], [part]), imaginary], [of])


row(
    name="conj",
    doc="The complex conjugate.",
    type_rule=alike("c", 1),
    evaluate=in_numpy(np.conj),
    derivative=itself(lambda b, ct: b.conj(ct)),
    batch=batch,
    lower=_lower_conj,
    samples=(sample("c64[2,3]"), sample("c128[2]")),
)


# ------------------------------------------------------------------------------------------------ abs
def _abs_type(x: Type) -> Type:
    demand("ifc", x)
    return x.with_dtype(component(x.dtype)) if x.dtype.kind == "c" else x


def _abs_jvp(
    b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
) -> Value:
    (x,), (t,), (size,) = operands, tangents, results
    if x.type.dtype.kind != "c":
        return b.select(b.ge(x, like(b, x, 0.0)), t, b.neg(t))
    divisor = b.select(b.eq(size, like(b, size, 0.0)), like(b, size, 1.0), size)
    return b.real(b.mul(t, b.div(b.conj(x), b.convert(divisor, to=x.type.dtype))))


row(
    name="abs",
    doc="|x|. The derivative at 0 is 1 for real numbers and 0 for complex ones.",
    type_rule=_abs_type,
    evaluate=in_numpy(np.abs),
    derivative=Jvp(_abs_jvp),
    batch=batch,
    lower="abs",
    may_be_nan=True,
    samples=(
        sample("f32[2,3]"),
        sample("bf16[3]"),
        sample("c64[3]"),
        sample("i32[4]", ints=(-5, 5)),
    ),
)
