"""Loops over the leading axes of arrays: `scan`, `for_loop`, and both with few saved steps."""

import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from stategrad.errors import TraceError
from stategrad.ir.record import record
from stategrad.user_frame import user_line

from .eager import run
from .loop_arguments import check_callable, loop_length, positive
from .loop_checks import Carry, described, explained, named_as
from .progress import ProgressBar, Reporter, reporter
from .remat import checkpoint

Step = Callable[[Any, Any], tuple[Any, Any]]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    pbar: ProgressBar | int | None = None,
    *,
    debug_nan: bool = False,
) -> tuple[Any, Any]:
    """Loops over the leading axes of `xs`, carrying a value; `f` may read and write States.

    Outside of any trace the call is traced each time and compiled once for each different program.

    Args:
        f: `(carry, x) -> (carry, y)`; the carry keeps its structure, shapes and dtypes.
        init: the first carry, any pytree.
        xs: a pytree of arrays of shape `[n, ...]`; `x` is the same of shapes `[...]`. None: `x` is None.
        length: n; needed only if there are no arrays in `xs`.
        reverse: go from the last step to the first. The outputs stay in the order of `xs`.
        unroll: how many steps are written out for each turn of the loop; True means all.
        pbar: shows progress while it runs: a `ProgressBar`, or how many steps lie between two reports.
        debug_nan: outside of any trace: raise `NonFiniteError`, and commit nothing, if something is not
            finite.

    Returns:
        The last carry, and the outputs `y` stacked: `[n, ...]` each.

    Raises:
        TraceError: the carry changes its type, lengths differ, or there is nothing to loop over.
        StateError: a State changes its type inside.
        NonFiniteError: with `debug_nan`, something is not finite.
    """
    return _scan(
        "scan", f, _with_carry(f), init, xs, _Options(length, reverse, unroll, pbar, debug_nan=debug_nan)
    )


def for_loop(
    f: Callable[..., Any],
    *xs: Any,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    pbar: ProgressBar | int | None = None,
    debug_nan: bool = False,
) -> Any:
    """Loops over the leading axes of `xs` and stacks what `f` returns; what is carried lives in States.

    Args:
        f: `(*x) -> y`, one argument for each of `xs`; none if there are none.
        xs: pytrees of arrays of shape `[n, ...]`.
        length, reverse, unroll, pbar, debug_nan: as for `scan`.

    Returns:
        The outputs `y` stacked: `[n, ...]` each.

    Raises:
        TraceError, StateError, NonFiniteError: as for `scan`.
    """
    return _scan(
        "for_loop",
        f,
        _without_carry(f),
        None,
        xs,
        _Options(length, reverse, unroll, pbar, debug_nan=debug_nan),
    )[1]


def checkpointed_scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    length: int | None = None,
    base: int = 16,
    pbar: ProgressBar | int | None = None,
    *,
    debug_nan: bool = False,
) -> tuple[Any, Any]:
    """As `scan`, but its gradient saves few steps: the loop is cut into chunks, and the backward pass
    computes a chunk again when it comes to it. Up to `base` ** 2 steps, memory is about the square root of
    that of `scan`, and each step runs once more; longer loops have chunks of chunks.

    Args:
        base: how many chunks, or steps of the innermost chunks, are saved at once.
        f, init, xs, length, pbar, debug_nan: as for `scan`.

    Raises:
        TraceError, StateError, NonFiniteError: as for `scan`.
    """
    return _scan(
        "checkpointed_scan",
        f,
        _with_carry(f),
        init,
        xs,
        _Options(length, pbar=pbar, base=base, debug_nan=debug_nan),
    )


def checkpointed_for_loop(
    f: Callable[..., Any],
    *xs: Any,
    length: int | None = None,
    base: int = 16,
    pbar: ProgressBar | int | None = None,
    debug_nan: bool = False,
) -> Any:
    """As `for_loop`, but its gradient saves few steps: see `checkpointed_scan`.

    Raises:
        TraceError, StateError, NonFiniteError: as for `scan`.
    """
    return _scan(
        "checkpointed_for_loop",
        f,
        _without_carry(f),
        None,
        xs,
        _Options(length, pbar=pbar, base=base, debug_nan=debug_nan),
    )[1]


# ------------------------------------------------------------------------------------------------ options
@record
class _Options:
    """What a loop is called with, beside its body and values; with `base`, chunks are computed again."""

    length: int | None
    reverse: bool = False
    unroll: int | bool = 1
    pbar: ProgressBar | int | None = None
    base: int | None = None
    debug_nan: bool = False


@record
class _Plan:
    """How a loop of `length` steps runs: one turn makes `chunk` steps, written out, or with `base` as a loop
    that the backward pass computes again.
    """

    loop: str
    length: int
    reverse: bool
    chunk: int
    base: int | None

    @staticmethod
    def of(loop: str, options: _Options, n: int) -> "_Plan":
        if options.base is not None:
            base = positive(options.base, "base", loop, 2)
            return _Plan(loop, n, False, _chunk(n, base) if n > base else 1, base)
        unroll = n if options.unroll is True else positive(options.unroll or 1, "unroll", loop)
        return _Plan(loop, n, options.reverse, max(1, min(unroll, n)), None)


def _scan(
    loop: str, f: Callable[..., Any], step: Callable[[Carry], Step], init: Any, xs: Any, options: _Options
) -> tuple[Any, Any]:
    check_callable(f, "the body", loop)
    n = loop_length(loop, xs, options.length)
    plan = _Plan.of(loop, options, n)
    bar = reporter(options.pbar, n, loop, ordered=plan.chunk > 1)

    def traced(init: Any, xs: Any) -> tuple[Any, Any]:
        noted = Carry(loop, f)
        body = step(noted)
        if bar is not None:
            body, xs = _reporting(bar, body), (_numbers(n, options.reverse), xs)
        with explained(noted.mismatch):
            return _run(body, init, xs, plan, noted)

    traced.__name__ = loop
    return run(traced, init, xs, debug_nan=options.debug_nan)


# ------------------------------------------------------------------------------------------------ bodies
def _with_carry(f: Callable[[Any, Any], Any]) -> Callable[[Carry], Step]:
    """The body of a scan, noting the types of its carry and checking that it gives a pair."""

    def noting(noted: Carry) -> Step:
        def step(carry: Any, x: Any) -> tuple[Any, Any]:
            noted.begin()
            result = f(carry, x)
            if not isinstance(result, (tuple, list)) or len(result) != 2:
                raise TraceError(
                    f"{described(f)} must return a pair (carry, output), not {type(result).__name__}"
                    f"{user_line()}; return `carry, None` if there is no output"
                )
            noted.note(carry, result[0])
            return result[0], result[1]

        return named_as(f, step)

    return noting


def _without_carry(f: Callable[..., Any]) -> Callable[[Carry], Step]:
    """The body of a for_loop as one of a scan that carries nothing."""

    def step(nothing: None, xs: Any) -> tuple[None, Any]:
        return nothing, f(*xs)

    vars(step)["__signature__"] = inspect.signature(step)  # its own, but the name and place of `f`
    return lambda _: named_as(f, step)


def _reporting(bar: Reporter, step: Step) -> Step:
    """The body that also reports how far it is."""

    def reported(carry: Any, numbered: Any) -> tuple[Any, Any]:
        number, x = numbered
        carry, y = step(carry, x)
        bar.report(number, carry=carry, x=x, y=y)
        return carry, y

    return named_as(step, reported)


def _numbers(n: int, reverse: bool) -> jax.Array:
    """For each step how many come before it."""
    return jnp.flip(jnp.arange(n)) if reverse else jnp.arange(n)


# ------------------------------------------------------------------------------------------------ chunks
def _run(step: Step, init: Any, xs: Any, plan: _Plan, noted: Carry) -> tuple[Any, Any]:
    if plan.chunk == 1:
        return jax.lax.scan(step, init, xs, plan.length, plan.reverse)
    if not plan.reverse:
        return _chunked(step, init, xs, plan, noted)
    carry, ys = _chunked(step, init, _flipped(xs), plan, noted)
    return carry, _flipped(ys)


def _chunk(n: int, base: int) -> int:
    """The size of the chunks that n steps are cut into, so that nested chunks leave about `base` steps.

    One near by that leaves nothing over is better: no second copy of the body, and none of the inputs.
    """
    levels = 1
    while base**levels < n:
        levels += 1
    size = math.ceil(n ** ((levels - 1) / levels) - 1e-9)
    even = [k for k in range(size // 2 + 1, min(2 * size, n)) if n % k == 0]
    return min(even, key=lambda k: abs(math.log(k / size)), default=size)


def _chunked(step: Step, init: Any, xs: Any, plan: _Plan, noted: Carry) -> tuple[Any, Any]:
    """A loop over chunks, and behind it the steps that are left over."""
    chunk, (turns, rest) = plan.chunk, divmod(plan.length, plan.chunk)
    cut = turns * chunk
    head = jax.tree.map(lambda x: x[:cut], xs) if rest else xs
    head = jax.tree.map(lambda x: jnp.reshape(x, (turns, chunk, *jnp.shape(x)[1:])), head)
    turn = named_as(step, lambda c, x: _one_chunk(step, c, x, chunk, plan, noted))
    carry, ys = jax.lax.scan(turn, init, head, turns)
    ys = jax.tree.map(lambda y: jnp.reshape(y, (cut, *y.shape[2:])), ys)
    if not rest:
        return carry, ys
    carry, more = _one_chunk(step, carry, jax.tree.map(lambda x: x[cut:], xs), rest, plan, noted)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, more)


def _one_chunk(step: Step, carry: Any, xs: Any, n: int, plan: _Plan, noted: Carry) -> tuple[Any, Any]:
    if plan.base is None:
        return _written_out(step, carry, xs, n, noted)
    inner = replace(plan, length=n, chunk=_chunk(n, plan.base) if n > plan.base else 1)
    return checkpoint(named_as(step, lambda carry, xs: _run(step, carry, xs, inner, noted)))(carry, xs)


def _written_out(step: Step, before: Any, xs: Any, n: int, noted: Carry) -> tuple[Any, Any]:
    each, carry = [], before
    for i in range(n):
        carry, y = step(carry, jax.tree.map(lambda x, i=i: x[i], xs))
        each.append(y)
    noted.note(before, carry)
    return carry, jax.tree.map(lambda *ys: jnp.stack(ys), *each)


def _flipped(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.flip(x, 0), tree)
