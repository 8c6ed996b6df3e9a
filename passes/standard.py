"""The pipelines that the transforms use before and after theirs."""

from collections.abc import Callable, Iterable

from stategrad.ir import Function

from .cse import Cse, cse_function
from .dce import Dce, dce_function
from .fold import Fold, fold_function
from .forward_state import ForwardState, forward_state_function
from .hoist_invariants import HoistInvariants, hoist_invariants_function
from .hoist_reads import HoistReads, hoist_reads_function
from .pipeline import Pipeline

CANONICALISE = Pipeline.of(HoistReads(), ForwardState(), Fold(), HoistInvariants(), Cse(), Dce())
"""For programs with effects, before they are differentiated: few reads and writes, nothing computed twice."""

SIMPLIFY = Pipeline.of(Fold(), Cse(), Dce())
"""For programs without effects, after thread-state."""

_CANONICALISE = (
    hoist_reads_function,
    forward_state_function,
    fold_function,
    hoist_invariants_function,
    cse_function,
    dce_function,
)
_SIMPLIFY = (fold_function, cse_function, dce_function)


def canonicalise_function(function: Function) -> Function:
    """What `CANONICALISE` makes of `function` with all it calls; the same object if that is nothing new."""
    return _apply(_CANONICALISE, function)


def simplify_function(function: Function) -> Function:
    """What `SIMPLIFY` makes of `function` with all it calls; the same object if that is nothing new."""
    return _apply(_SIMPLIFY, function)


def _apply(passes: Iterable[Callable[[Function], Function]], function: Function) -> Function:
    for step in passes:
        function = step(function)
    return function
