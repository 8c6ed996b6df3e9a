"""Constants as the passes look at them."""

from typing import Any

import numpy as np

from stategrad.ir import Operation

CONSTANT = "constant"

BARRIER = "optimization_barrier"
"""It computes nothing, but no pass may look through it."""


def splat(op: Operation | None) -> Any:
    """The one number that a constant is full of, as a NumPy scalar; None if there is none."""
    if op is None or op.opdef.name != CONSTANT:
        return None
    value, type = op.attributes["value"], op.attributes["type"]
    if type.dtype.numpy is None or getattr(value, "shape", ()) != ():
        return None
    with np.errstate(all="ignore"):
        return np.asarray(value).astype(type.dtype.numpy)[()]


def is_zero(op: Operation | None) -> bool:
    """Whether the operation is a constant full of zeros (of positive sign)."""
    value = splat(op)
    return value is not None and value.tobytes() == bytes(value.nbytes)
