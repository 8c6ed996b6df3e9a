"""The pipelines that the transforms use before and after theirs."""

from collections.abc import Callable, Iterable

from stategrad.ir import Function, Module, reachable, walk

from .cse import Cse, cse_function
from .dce import Dce, dce_function
from .distribute_loops import DistributeLoops, distribute_loops_function
from .fold import Fold, fold_function
from .forward_state import ForwardState, forward_state_function
from .hoist_invariants import HoistInvariants, hoist_invariants_function
from .hoist_reads import HoistReads, hoist_reads_function
from .hold_remats import REMAT, HoldRemats, hold_remats_function
from .inline import Inline, inline_function
from .loop_layouts import LoopLayouts, loop_layouts_function
from .narrow_products import NarrowProducts, narrow_products_function
from .pipeline import Pipeline
from .residuals import Residuals, residuals_function
from .residuals_scan import SCAN

CANONICALISE = Pipeline.of(Inline(), HoistReads(), ForwardState(), Fold(), HoistInvariants(), Cse(), Dce())
"""For programs with effects, before they are differentiated: few reads and writes, nothing computed twice."""

SIMPLIFY = Pipeline.of(Fold(), Cse(), Dce())
"""For programs without effects, after thread-state."""

_TIDY = (HoistInvariants(), Fold(), Cse(), Dce())
_TIDY_FUNCTIONS = (hoist_invariants_function, fold_function, cse_function, dce_function)

_CANONICALISE = (
    inline_function,
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


def loop_passes(module: Module, budget: int | float | None = None) -> Pipeline:
    """The passes for a program that is about to be compiled: products no wider than they are used; remats
    that wait; in loops, what is kept for backward loops, and what is computed for a block of steps at once.

    Args:
        budget: what may be kept, as in `Residuals`.
    """
    found = _structured(module.functions.values())
    first = (NarrowProducts(), HoldRemats()) if REMAT in found else (NarrowProducts(),)
    if SCAN not in found:
        return Pipeline.of(*first)
    blocks = (DistributeLoops(),) if _may_keep_blocks(budget) else ()
    return Pipeline.of(*first, Residuals(budget), *_TIDY, *blocks, LoopLayouts(), *_TIDY)


def shape_loops_function(function: Function, budget: int | float | None = None) -> Function:
    """What `loop_passes` make of `function` with all it calls; the same object if that is nothing new."""
    found = _structured(reachable(function))
    function = narrow_products_function(function)
    if REMAT in found:
        function = hold_remats_function(function)
    if SCAN not in found:
        return function
    blocks = (distribute_loops_function,) if _may_keep_blocks(budget) else ()
    chosen = residuals_function(function, budget)
    return _apply((*_TIDY_FUNCTIONS, *blocks, loop_layouts_function, *_TIDY_FUNCTIONS), chosen)


def _may_keep_blocks(budget: int | float | None) -> bool:
    """Blocks of steps take a little memory: none of it is there where only the least will do."""
    return budget != 0


def _structured(functions: Iterable[Function]) -> set[str]:
    """The names of the operations with regions or a callee that occur in functions."""
    bodies = [f.body for f in functions if not f.body.straight]
    return {op.name for body in bodies for op in walk(body) if not op.opdef.pure}


def _apply(passes: Iterable[Callable[[Function], Function]], function: Function) -> Function:
    for step in passes:
        function = step(function)
    return function
