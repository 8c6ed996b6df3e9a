"""Loops that run as long as a condition holds."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategrad.errors import TraceError
from stategrad.user_frame import user_line

from .eager import run
from .loop_arguments import check_callable, check_scalar, positive
from .loop_checks import Carry, described, explained, named_as
from .remat import checkpoint


def while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    *,
    debug_nan: bool = False,
) -> Any:
    """Runs the body as long as the condition holds. Both may read and write States, and see what the other
    wrote.

    It has a forward derivative but none in reverse: for a gradient use `bounded_while_loop`, or `for_loop` if
    the number of steps is known.

    Args:
        cond_fun: `value -> bool[]`.
        body_fun: `value -> value`, of the same structure, shapes and dtypes.
        init_val: the first value, any pytree.
        debug_nan: as for `scan`.

    Returns:
        The last value.

    Raises:
        TraceError: the value changes its type, or the condition gives something else than one boolean.
        StateError: a State changes its type inside.
        NonFiniteError: with `debug_nan`, something is not finite.
    """
    _check_functions("while_loop", cond_fun, body_fun)

    def while_loop(init_val: Any) -> Any:
        noted = Carry("while_loop", body_fun)
        with explained(noted.mismatch):
            return jax.lax.while_loop(_checked("while_loop", cond_fun), _noting(noted, body_fun), init_val)

    return run(while_loop, init_val, debug_nan=debug_nan)


def bounded_while_loop(
    cond_fun: Callable[[Any], Any],
    body_fun: Callable[[Any], Any],
    init_val: Any,
    *,
    max_steps: int,
    base: int = 16,
    debug_nan: bool = False,
) -> Any:
    """As `while_loop`, with a bound on its steps, and so with a gradient. After `max_steps` it ends, without
    asking the condition again.

    The steps are nested in loops of at most `base` turns: what comes after the end is skipped in large
    pieces, and the backward pass computes a piece again when it comes to it, so that few steps are saved.

    Args:
        cond_fun, body_fun, init_val, debug_nan: as for `while_loop`.
        max_steps: the bound, 0 or more.
        base: the most turns of one loop, 2 or more. A larger one saves more and computes less again.

    Raises:
        TraceError, StateError, NonFiniteError: as for `while_loop`.
    """
    _check_functions("bounded_while_loop", cond_fun, body_fun)
    bound = positive(max_steps, "max_steps", "bounded_while_loop", 0)
    turns = _turns(bound, positive(base, "base", "bounded_while_loop", 2))

    def bounded_while_loop(init_val: Any) -> Any:
        noted = Carry("bounded_while_loop", body_fun)
        step = _attempt(_checked("bounded_while_loop", cond_fun), _noting(noted, body_fun), bound)
        start = jnp.asarray(bound > 0), jnp.zeros((), jnp.int32), init_val
        with explained(noted.mismatch):
            return _nested(step, start, turns)[2]

    return run(bounded_while_loop, init_val, debug_nan=debug_nan)


# ------------------------------------------------------------------------------------------------ bounded
_Progress = tuple[Any, Any, Any]
"""Whether the loop still runs, how many steps it has taken, and its value."""


def _turns(bound: int, base: int) -> tuple[int, ...]:
    """The lengths, none over `base`, of nested loops that make `bound` steps or a few more."""
    levels = 1
    while base**levels < bound:
        levels += 1
    return (math.ceil(bound ** (1 / levels) - 1e-9),) * levels


def _attempt(
    condition: Callable[[Any], Any], body: Callable[[Any], Any], bound: int
) -> Callable[[_Progress], _Progress]:
    """One step of a loop that has not ended: it ends where the condition fails or the bound is reached."""

    def attempt(progress: _Progress) -> _Progress:
        _, taken, value = progress
        going = condition(value)
        value = jax.lax.cond(going, body, _same, value)
        return going & (taken + 1 < bound), taken + 1, value

    return attempt


def _nested(step: Callable[[_Progress], _Progress], start: _Progress, turns: Sequence[int]) -> _Progress:
    inner = step if len(turns) == 1 else checkpoint(lambda progress: _nested(step, progress, turns[1:]))

    def turn(progress: _Progress, _: None) -> tuple[_Progress, None]:
        return jax.lax.cond(progress[0], inner, _same, progress), None

    return jax.lax.scan(turn, start, None, length=turns[0])[0]


def _same(value: Any) -> Any:
    return value


# ------------------------------------------------------------------------------------------------ checks
def _check_functions(loop: str, cond_fun: Any, body_fun: Any) -> None:
    check_callable(cond_fun, "cond_fun", loop)
    check_callable(body_fun, "body_fun", loop)


def _checked(loop: str, cond_fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def condition(value: Any) -> Any:
        answer = cond_fun(value)
        if jax.tree.structure(answer) != _LEAF:
            raise TraceError(
                f"{described(cond_fun)} must give {loop}{user_line()} one boolean, "
                f"not {type(answer).__name__}"
            )
        check_scalar(answer, "b", f"the answer of {described(cond_fun)}", loop, "one boolean")
        return answer

    return named_as(cond_fun, condition)


_LEAF = jax.tree.structure(0)


def _noting(noted: Carry, body_fun: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def body(value: Any) -> Any:
        noted.begin()
        result = body_fun(value)
        noted.note(value, result)
        return result

    return named_as(body_fun, body)
