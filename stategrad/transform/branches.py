"""Branches: one of several functions runs, chosen by a value that the program computes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategrad.errors import TraceError
from stategrad.user_frame import user_line

from .eager import run
from .loop_arguments import check_callable, check_scalar
from .loop_checks import Branches, explained


def cond(
    pred: Any,
    true_fun: Callable[..., Any],
    false_fun: Callable[..., Any],
    *operands: Any,
    debug_nan: bool = False,
) -> Any:
    """`true_fun(*operands)` if `pred` holds, else `false_fun(*operands)`. Both may read and write States.

    Args:
        pred: one boolean; of a number, whether it is not zero.
        true_fun, false_fun: give results of the same structure, shapes and dtypes.
        operands: any pytrees of arrays.
        debug_nan: as for `scan`.

    Raises:
        TraceError: `pred` is no single number, or the branches give different types.
        StateError: a State changes its type inside.
        NonFiniteError: with `debug_nan`, something is not finite.
    """
    check_scalar(pred, "biuf", "pred", "cond", "one boolean or number")
    check_callable(true_fun, "true_fun", "cond")
    check_callable(false_fun, "false_fun", "cond")

    def cond(pred: Any, *operands: Any) -> Any:
        branches = Branches("cond", (true_fun, false_fun))
        with explained(branches.mismatch):
            return jax.lax.cond(_flag(pred), *branches.noting(), *operands)

    return run(cond, pred, *operands, debug_nan=debug_nan)


def switch(
    index: Any, branches: Sequence[Callable[..., Any]], *operands: Any, debug_nan: bool = False
) -> Any:
    """`branches[index](*operands)`, with the index moved into range. All may read and write States.

    Args:
        index: one integer; below 0 means the first branch, too large the last.
        branches: one or more; they give results of the same structure, shapes and dtypes.
        operands: any pytrees of arrays.
        debug_nan: as for `scan`.

    Raises:
        TraceError: `index` is no single integer, there are no branches, or they give different types.
        StateError: a State changes its type inside.
        NonFiniteError: with `debug_nan`, something is not finite.
    """
    check_scalar(index, "iu", "index", "switch", "one integer")
    _check_branches("switch", branches)

    def switch(index: Any, *operands: Any) -> Any:
        return _switch("switch", index, branches, operands)

    return run(switch, index, *operands, debug_nan=debug_nan)


def ifelse(
    conditions: Any, branches: Sequence[Callable[..., Any]], *operands: Any, debug_nan: bool = False
) -> Any:
    """Runs the branch of the first condition that holds: `if`, `elif`, …, `else`.

        ifelse([x > 5, x > 0], [large, small, negative], x)

    Args:
        conditions: booleans or numbers, one for each branch or one fewer. If none holds, the last branch
            runs: it is the `else`, whatever its own condition says.
        branches, operands, debug_nan: as for `switch`.

    Raises:
        TraceError: the number of conditions does not fit, or as for `switch`.
        StateError: a State changes its type inside.
        NonFiniteError: with `debug_nan`, something is not finite.
    """
    _check_branches("ifelse", branches)
    each = list(conditions) if not hasattr(conditions, "ndim") or conditions.ndim else [conditions]
    if len(each) not in (len(branches), len(branches) - 1):
        raise TraceError(
            f"ifelse{user_line()} has {len(each)} conditions for {len(branches)} branches; give one for "
            "each, or one fewer and the last branch is the `else`"
        )
    for i, condition in enumerate(each):
        check_scalar(condition, "biuf", f"conditions[{i}]", "ifelse", "one boolean or number")

    def ifelse(conditions: list[Any], *operands: Any) -> Any:
        holds = [_flag(c) for c in conditions[: len(branches) - 1]]
        index = jnp.argmax(jnp.stack([*holds, jnp.asarray(True)]))
        return _switch("ifelse", index, branches, operands)

    return run(ifelse, each, *operands, debug_nan=debug_nan)


def _switch(name: str, index: Any, functions: Sequence[Callable[..., Any]], operands: Sequence[Any]) -> Any:
    branches = Branches(name, tuple(functions))
    with explained(branches.mismatch):
        return jax.lax.switch(jnp.asarray(index), branches.noting(), *operands)


def _flag(number: Any) -> Any:
    """Whether a number is not zero; a boolean stays what it is."""
    array = jnp.asarray(number)
    return array if array.dtype == jnp.bool_ else array != 0


def _check_branches(name: str, branches: Any) -> None:
    if not isinstance(branches, Sequence) or not branches:
        raise TraceError(f"branches of {name} is {branches!r}, expected a list of functions{user_line()}")
    for i, branch in enumerate(branches):
        check_callable(branch, f"branches[{i}]", name)
