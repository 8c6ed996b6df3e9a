"""The pipelines that the transforms use before and after theirs."""

from stategrad.ir import Function

from .cse import Cse, cse_function
from .dce import Dce, dce_function
from .fold import Fold, fold_function
from .forward_state import ForwardState, forward_state_function
from .hoist_reads import HoistReads, hoist_reads_function
from .pipeline import Pipeline

CANONICALISE = Pipeline.of(HoistReads(), ForwardState(), Fold(), Cse(), Dce())
"""For programs with effects, before they are differentiated: few reads and writes, nothing computed twice."""

SIMPLIFY = Pipeline.of(Fold(), Cse(), Dce())
"""For programs without effects, after thread-state."""


def canonicalise_function(function: Function) -> Function:
    """What `CANONICALISE` makes of `function` with all it calls; the same object if that is nothing new."""
    return dce_function(cse_function(fold_function(forward_state_function(hoist_reads_function(function)))))


def simplify_function(function: Function) -> Function:
    """What `SIMPLIFY` makes of `function` with all it calls; the same object if that is nothing new."""
    return dce_function(cse_function(fold_function(function)))
