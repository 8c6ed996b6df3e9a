"""Calls outside of any trace of functions that are made for one call, and runs of finished programs."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import argument_names, check_leaves, function_name
from stategrad.resident import settle
from stategrad.state import LOCK, Epochs, refuse_in_callbacks
from stategrad.trace import Leaf, Retyped, trace

from .planning import plan_of
from .recipes import AsIs
from .staging import Staged
from .trips import refuse_under_trace


def run(fn: Callable[..., Any], *args: Any, debug_nan: bool = False) -> Any:
    """`fn(*args)`: a part of the trace that is current, or if there is none, traced and compiled. Calls whose
    programs come out equal share one compilation, whatever arrays the functions close over.

    Raises:
        TraceError, StateError: as for `trace`.
        NonFiniteError: with `debug_nan`, something is not finite; nothing is committed.
    """
    check_leaves(jax.tree.leaves(args), argument_names(fn, args, {}), fn, "argument")
    if debug_nan:
        refuse_under_trace(function_name(fn))
    elif not compat.is_eager() or compat.jit_is_disabled():
        return fn(*args)
    refuse_in_callbacks()
    with LOCK:
        plan = plan_of(trace(fn, args, {}), AsIs(), args, {}, watched=debug_nan)
        return plan.call(args, {})


def commit_all(staged: Staged, results: list[Any], outputs: Sequence[Leaf], new: Sequence[Any]) -> Any:
    """Commits everything, through an interrupt in the middle of it too."""
    try:
        return _commit(staged, results, outputs, new)
    except BaseException:
        _commit(staged, results, outputs, new)
        raise


def _commit(staged: Staged, results: list[Any], outputs: Sequence[Leaf], new: Sequence[Any]) -> Any:
    settle()
    for leaf, array in zip(outputs, new, strict=True):
        slot = leaf.slot
        # Residuals may hold it too: nobody may donate it.
        slot.array, slot.exclusive = array, False
    Epochs.sharing += 1
    return staged.deliver(results, _store)


def _store(retyped: Retyped, leaves: list[Any]) -> None:
    retyped.state.store(retyped.held.structure, leaves)
