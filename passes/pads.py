"""Sums of pads: the parts of an array, each padded with zeros to the whole, are put together, not added.

That is what becomes of the cotangents of an array that was split.
"""

from typing import TYPE_CHECKING

from stategrad.ir import Operation, Value

if TYPE_CHECKING:
    from .identities import Folding

_WIDEST = 16
"""So many operands does a concatenation get at most before another one is started: a chain stays linear."""


def joined(scope: "Folding", op: Operation) -> Value | None:
    """The sum of two neighbouring parts, each between zeros, as one part between zeros; else None."""
    x, y = op.operands
    first = scope.made_by(x, "pad")
    second = None if first is None else scope.made_by(y, "pad")
    if first is None or second is None or not all(_of_zeros(scope, pad) for pad in (first, second)):
        return None
    for one, other in ((first, second), (second, first)):
        axis = _common_edge(one, other)
        if axis is not None:
            return _join(scope, one, other, axis)
    return None


def _of_zeros(scope: "Folding", pad: Operation) -> bool:
    counts = (*pad.attributes["low"], *pad.attributes["high"])
    return (
        scope.full(pad.operands[1], 0) and not any(pad.attributes["interior"]) and min(counts, default=0) >= 0
    )


def _common_edge(one: Operation, other: Operation) -> int | None:
    """The axis along which the second part begins where the first one ends, if they lie side by side."""
    low, high = (one.attributes[key] for key in ("low", "high"))
    differ = [
        a
        for a in range(len(low))
        if (low[a], high[a]) != (other.attributes["low"][a], other.attributes["high"][a])
    ]
    if len(differ) != 1:
        return None
    (axis,) = differ
    end = low[axis] + one.operands[0].type.shape[axis]
    return axis if end == other.attributes["low"][axis] else None


def _join(scope: "Folding", one: Operation, other: Operation, axis: int) -> Value:
    parts = [*_parts(scope, one.operands[0], axis), *_parts(scope, other.operands[0], axis)]
    if len(parts) > _WIDEST:
        parts = [one.operands[0], other.operands[0]]
    whole = scope.concatenate(*parts, dimension=axis)
    low, high = list(one.attributes["low"]), list(one.attributes["high"])
    high[axis] = other.attributes["high"][axis]
    if not any((*low, *high)):
        return whole
    attributes = {"low": tuple(low), "high": tuple(high), "interior": one.attributes["interior"]}
    return scope.pad(whole, one.operands[1], **attributes)


def _parts(scope: "Folding", value: Value, axis: int) -> tuple[Value, ...]:
    made = scope.made_by(value, "concatenate")
    return made.operands if made is not None and made.attributes["dimension"] == axis else (value,)
