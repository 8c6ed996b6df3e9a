"""The importer's entries for constants and elementwise primitives of jax.lax.

An entry is `(b, params, operands, types) -> value or values`. NotImplemented, or an IRTypeError of a row,
makes the equation a foreign operation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stategrad.ir import Builder, Type, Value, dtype_of

Entry = Callable[[Builder, Mapping[str, Any], Sequence[Value], Sequence[Type]], Any]


def broadcast_operands(b: Builder, operands: Sequence[Value], shape: tuple[int, ...]) -> list[Value]:
    """The operands in one shape: lax leaves scalars, and axes of length 1, to be broadcast."""
    return [_broadcast(b, x, shape) for x in operands]


def _broadcast(b: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    of = x.type.shape
    if of == shape:
        return x
    return b.broadcast(x, shape=shape, dimensions=tuple(range(len(shape) - len(of), len(shape))))


def _plain(row: str, **only: Any) -> Entry:
    """An entry for a primitive that is a row, as long as the parameters in `only` have these values."""

    def entry(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
        for name, value in only.items():
            if params.get(name, value) is not value:
                return NotImplemented
        return b.call_row(row, *broadcast_operands(b, operands, types[0].shape))

    return entry


def _accurate(row: str) -> Entry:
    """An entry for a row that has only the usual accuracy."""
    return _plain(row, accuracy=None)


# ------------------------------------------------------------------------------------- entries of their own
def _iota(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
    if operands or params.get("sharding") is not None:
        return NotImplemented
    return b.iota(type=types[0], dimension=params["dimension"])


def _convert(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
    (x,) = operands
    if params.get("sharding") is not None or x.type.dtype.kind == "k":
        return NotImplemented
    to = dtype_of(params["new_dtype"])
    # A conversion to the same type only drops the weakness of a type, which the IR does not have.
    return x if x.type.dtype is to else b.convert(x, to=to)


def _select_n(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
    which, *cases = operands
    if len(cases) != 2 or which.type.dtype.kind != "b":
        return NotImplemented
    on_false, on_true = cases
    if which.type.rank == 0:
        which = _broadcast(b, which, types[0].shape)
    return b.select(which, on_true, on_false)


def _integer_pow(
    b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]
) -> Any:
    return b.integer_pow(*operands, y=int(params["y"]))


def _round(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
    return b.round(*operands, mode=params["rounding_method"].name.lower())


def _exp2(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
    (x,) = operands
    if params.get("accuracy") is not None:
        return NotImplemented
    return b.exp(b.mul(x, b.constant(math.log(2), x.type)))


def _conj(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
    (x,) = operands
    return b.conj(x) if x.type.dtype.kind == "c" else b.complex(x, b.zeros(x.type))


def _barrier(b: Builder, params: Mapping[str, Any], operands: Sequence[Value], types: Sequence[Type]) -> Any:
    return b.optimization_barrier(*operands)


# ------------------------------------------------------------------------------------- the table
_SAME_NAME = (
    *("sub", "div", "rem", "max", "min", "atan2", "nextafter", "pow", "neg", "sign", "floor", "ceil", "abs"),
    *("is_finite", "square", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"),
    *("erf", "erfc", "erf_inv", "real", "imag", "complex", "eq", "ne", "lt", "le", "gt", "ge", "clamp"),
    *("and", "or", "xor", "not", "shift_left", "shift_right_logical", "shift_right_arithmetic"),
    *("population_count", "clz", "copy", "stop_gradient"),
)
_WITH_ACCURACY = (
    "exp",
    "expm1",
    "log",
    "log1p",
    "logistic",
    "tanh",
    "sin",
    "cos",
    "tan",
    "sqrt",
    "rsqrt",
    "cbrt",
)

TABLE: dict[str, Entry] = {
    **{name: _plain(name) for name in _SAME_NAME},
    **{name: _accurate(name) for name in _WITH_ACCURACY},
    "add": _plain("add", out_dtype=None),
    "add_any": _plain("add"),
    "mul": _plain("mul", out_dtype=None),
    "iota": _iota,
    "convert_element_type": _convert,
    "select_n": _select_n,
    "integer_pow": _integer_pow,
    "round": _round,
    "exp2": _exp2,
    "conj": _conj,
    "optimization_barrier": _barrier,
}
