"""What elementwise rows share: type rules by kind, evaluation, derivatives from slopes, batching."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core import Operation, Type, Value
from ..derivatives import Derivative, Jvp, Linear
from ..dtypes import DType, dtype
from ..errors import IRTypeError
from ..opdef import Sample, Tangents, row, sample
from .axes import all_batched

if TYPE_CHECKING:
    from ..build import Builder

Slope = Callable[["Builder", Sequence[Value], Value], Value]

_KINDS = {
    "b": "booleans",
    "i": "signed integers",
    "u": "unsigned integers",
    "f": "real numbers",
    "c": "complex numbers",
    "k": "keys",
}


# ------------------------------------------------------------------------------------------------ type rules
def demand(kinds: str, *types: Type) -> None:
    """Demands element types of these kinds (the letters of `DType.kind`).

    Raises:
        IRTypeError: one is of another kind.
    """
    for x in types:
        if x.dtype.kind not in kinds:
            raise IRTypeError(f"takes {' or '.join(_KINDS[k] for k in kinds)}, not {x}")


def demand_same(*types: Type) -> None:
    """Demands equal types: nothing is broadcast or promoted implicitly.

    Raises:
        IRTypeError: two differ.
    """
    for x in types[1:]:
        if x != types[0]:
            raise IRTypeError(
                f"the operands must have one type, not {types[0]} and {x}: broadcast or convert first"
            )


def alike(kinds: str, arity: int, to: DType | None = None) -> Callable[..., Type]:
    """The type rule of `arity` equal operands of these kinds; the result is one more, or of type `to`."""

    def rule(*types: Type) -> Type:
        if len(types) != arity:
            raise IRTypeError(f"takes {arity} operands, not {len(types)}")
        demand(kinds, *types)
        demand_same(*types)
        return types[0] if to is None else types[0].with_dtype(to)

    return rule


def component(of: DType) -> DType:
    """The element type of the real and the imaginary part of a complex number."""
    return dtype("f32" if of.name == "c64" else "f64")


# ------------------------------------------------------------------------------------------------ evaluation
def widened(x: np.ndarray) -> np.ndarray:
    """`x` in a type that NumPy computes well in: short floats as f32, integers below a byte as i32."""
    if x.dtype.kind in "biufc" and not (x.dtype.kind == "f" and x.dtype.itemsize < 4):
        return x
    if x.dtype.kind in "fV" and not _is_short_integer(x.dtype):
        return x.astype(np.float32)
    return x.astype(np.uint32 if x.dtype.name.startswith("u") else np.int32)


def _is_short_integer(of: np.dtype) -> bool:
    return "int" in of.name


def in_numpy(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as a row's `evaluate`: short types are computed wide and rounded; nothing warns."""

    def evaluate(*operands: Any, **attributes: Any) -> np.ndarray:
        given = [np.asarray(x) for x in operands]
        wide = [widened(x) for x in given]
        with np.errstate(all="ignore"):
            found = np.asarray(function(*wide, **attributes))
            rounded = wide[0].dtype != given[0].dtype and wide[0].dtype == found.dtype
            return found.astype(given[0].dtype) if rounded else found

    return evaluate


# ------------------------------------------------------------------------------------------------ derivatives
def like(b: "Builder", x: Value, value: Any) -> Value:
    """A constant of the type of `x`."""
    return b.constant(value, x.type)


def slopes(*partials: Slope) -> Jvp:
    """The derivative of a function whose slope by operand i is `partials[i](b, operands, result)`."""

    def rule(
        b: "Builder", op: Operation, operands: Sequence[Value], tangents: Tangents, results: Sequence[Value]
    ) -> Any:
        terms = [
            b.mul(t, partial(b, operands, results[0]))
            for t, partial in zip(tangents, partials, strict=True)
            if t is not None
        ]
        return total(b, terms)

    return Jvp(rule)


def slope(partial: Callable[["Builder", Value, Value], Value]) -> Jvp:
    """The derivative of a function of one operand, from its slope `partial(b, operand, result)`."""
    return slopes(lambda b, operands, result: partial(b, operands[0], result))


def over(divisor: Callable[["Builder", Value], Value]) -> Jvp:
    """The derivative of a function of one operand whose slope is one over `divisor(b, operand)`."""
    return Jvp(lambda b, op, operands, tangents, results: b.div(tangents[0], divisor(b, operands[0])))


def total(b: "Builder", terms: Sequence[Value]) -> Value:
    """The sum of one or more values."""
    found = terms[0]
    for term in terms[1:]:
        found = b.add(found, term)
    return found


def itself(transpose: Callable[["Builder", Value], Value]) -> Linear:
    """The derivative of a linear function of one operand; `transpose(b, cotangent)` emits its transpose."""
    return Linear("all", lambda b, op, index, cotangent, operands: transpose(b, cotangent))


# --------------------------------------------------------------------------------------------- batching, rows
def batch(
    b: "Builder", op: Operation, operands: Sequence[Value], batched: Sequence[bool]
) -> tuple[Value, ...]:
    """The batching rule of everything elementwise: the operation, on operands that all have the axis."""
    return b.emit(op.opdef, all_batched(b, operands, batched), op.attributes)


def elementwise(
    name: str,
    doc: str,
    kinds: str,
    evaluate: Callable[..., Any],
    derivative: Derivative,
    lower: str | Callable[..., Any],
    *samples: Sample,
    nan: bool = False,
) -> None:
    """Declares a row without attributes, of equal operands of these kinds, whose result has their type."""
    row(
        name=name,
        doc=doc,
        type_rule=alike(kinds, len(samples[0].types)),
        evaluate=in_numpy(evaluate),
        derivative=derivative,
        batch=batch,
        lower=lower,
        may_be_nan=nan,
        samples=samples,
    )


REAL = (sample("f32[2,3]"), sample("f32[]"), sample("bf16[3]"), sample("f16[3]"))
POSITIVE = (sample("f32[2,3]", low=0.1, high=2.0), sample("bf16[3]", low=0.1, high=2.0))
INSIDE = (sample("f32[2,3]", low=-0.9, high=0.9), sample("bf16[3]", low=-0.9, high=0.9))
