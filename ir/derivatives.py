"""What a row can say of its derivative."""

from collections.abc import Callable
from typing import Any, Literal

from .core import Value
from .record import record


@record
class Jvp:
    """The tangents follow from a rule that emits IR: `rule(b, op, operands, tangents, results)`.

    `op` gives attributes and types; `operands` and `results` are the primal values to use; a tangent is None
    where it is zero. The rule returns the tangent of the result (a tuple for several results), or None where
    it is zero. What it emits must be linear in the tangents.

    `transpose(b, op, index, cotangent, operands)`, if given, is as in `Linear`, for an operation that is
    linear in some operands while the others are known: a quotient in its numerator.
    """

    rule: Callable[..., Any]
    transpose: Callable[..., Value | None] | None = None


@record
class Linear:
    """The operation is linear in its differentiable operands: in "all" of them together, or in "each" alone.

    `transpose(b, op, index, cotangent, operands)` emits the cotangent of operand `index`; the other operands
    are primal values where they are known and None where they are linear too. `missing(b, op, tangents)`, if
    given, is the tangent of an "all" operation when some tangents are None (otherwise they become zeros).
    """

    over: Literal["all", "each"]
    transpose: Callable[..., Value | None]
    missing: Callable[..., Value] | None = None


@record
class Zero:
    """The derivative is zero wherever it exists."""

    why: str


@record
class Undefined:
    """There is no derivative; asking for it is an error that says why."""

    why: str


Derivative = Jvp | Linear | Zero | Undefined
