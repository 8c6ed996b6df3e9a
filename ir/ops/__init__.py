"""All rows; importing this package registers them."""

from . import (
    arithmetic,
    call,
    compare,
    cond,
    constants,
    effects,
    elementwise,
    indexing,
    linear_algebra,
    reductions,
    remat,
    scan,
    shape,
    while_loop,
)

__all__ = [
    "arithmetic",
    "call",
    "compare",
    "cond",
    "constants",
    "effects",
    "elementwise",
    "indexing",
    "linear_algebra",
    "reductions",
    "remat",
    "scan",
    "shape",
    "while_loop",
]
