"""Checks of what loops and branches are called with."""

import operator
from typing import Any

import jax
import numpy as np

from stategrad import jax_compat as compat
from stategrad.errors import TraceError
from stategrad.state import State
from stategrad.user_frame import user_line


def check_callable(given: Any, name: str, of: str) -> None:
    """Checks that a body, condition or branch can be called.

    Raises:
        TraceError: it cannot.
    """
    if not callable(given):
        raise TraceError(
            f"{name} of {of}{user_line()} is {given!r} of type {type(given).__name__}, not a function"
        )


def check_scalar(given: Any, kinds: str, name: str, of: str, wanted: str) -> None:
    """Checks that a predicate or index is one number of one of the kinds (as NumPy's `dtype.kind`).

    Raises:
        TraceError: it has axes, or another kind.
    """
    if isinstance(given, State) or not compat.is_array_like(given):
        instead = f"; pass {given.name}.value" if isinstance(given, State) else ""
        raise TraceError(
            f"{name} of {of}{user_line()} is {given!r} of type {type(given).__name__}, "
            f"expected {wanted}{instead}"
        )
    found = jax.typeof(given)
    if found.shape != () or found.dtype.kind not in kinds:
        advice = "; reduce it with jnp.any, jnp.all or an index" if found.shape else ""
        raise TraceError(f"{name} of {of}{user_line()} is {found.str_short()}, expected {wanted}{advice}")


def loop_length(loop: str, xs: Any, length: int | None) -> int:
    """How many steps a loop over the leading axes of `xs` takes.

    Raises:
        TraceError: a leaf is no array, has no axis or another length than the rest; nothing is given.
    """
    steps, said = (None, "") if length is None else (_steps(loop, length), "length says")
    for path, leaf in jax.tree_util.tree_flatten_with_path(xs)[0]:
        name = f"xs{jax.tree_util.keystr(path)}"
        n = _leading(loop, name, leaf)
        if steps is None:
            steps, said = n, f"{name} has"
        elif n != steps:
            raise TraceError(f"{name} of {loop} has {n} steps where {said} {steps}{user_line()}")
    if steps is None:
        raise TraceError(f"{loop} has nothing to loop over{user_line()}; pass arrays, or length=")
    return steps


def _steps(loop: str, length: Any) -> int:
    try:
        steps = operator.index(length)
    except TypeError:
        steps = -1
    if steps < 0:
        raise TraceError(
            f"length of {loop} is {length!r}, expected a number of steps, 0 or more{user_line()}"
        )
    return steps


def _leading(loop: str, name: str, leaf: Any) -> int:
    if isinstance(leaf, State):
        raise TraceError(f"{name} of {loop} is the State {leaf.name!r}{user_line()}; pass {leaf.name}.value")
    if not compat.is_array_like(leaf):
        raise TraceError(
            f"{name} of {loop}{user_line()} is {leaf!r} of type {type(leaf).__name__}, not an array; "
            "make it one with jnp.array"
        )
    shape = np.shape(leaf)
    if not shape:
        raise TraceError(
            f"{name} of {loop}{user_line()} is a single number, with no axis to loop over; pass an array "
            "(a list of numbers as jnp.array), or let the body close over it"
        )
    return shape[0]


def positive(given: Any, name: str, of: str, least: int = 1) -> int:
    """A whole number that is at least `least`.

    Raises:
        TraceError: it is not.
    """
    try:
        found = operator.index(given)
    except TypeError:
        found = least - 1
    if found < least:
        raise TraceError(
            f"{name} of {of} is {given!r}, expected a whole number, {least} or more{user_line()}"
        )
    return found
