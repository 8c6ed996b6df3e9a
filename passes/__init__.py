"""Passes: Module -> Module. Importing this package registers all of them by name, for `parse_pipeline`.

For one function at a time, as the transforms work, each pass has a function of its own: `dce_function`, ….
"""

if __name__ != "stategrad.passes":
    raise ImportError(
        "import this package as stategrad.passes: under another name every class would exist twice"
    )

from .batch import Batch, Batched, batch_function
from .cse import Cse, cse_function
from .dce import Dce, dce_function
from .derivative_passes import ForwardMode, Gradient, Linearize, Transpose
from .distribute_loops import DistributeLoops, distribute_loops_function
from .errors import PassError, PassTextError
from .fold import Fold, fold_function
from .forward_state import ForwardState, forward_state_function
from .gradient import gradient_function
from .hoist_invariants import HoistInvariants, hoist_invariants_function
from .hoist_reads import HoistReads, hoist_reads_function
from .hold_remats import HoldRemats, hold_remats_function
from .hooks import DumpTo, Print, Timing, Verify, together
from .inline import Inline, inline_function, inline_functions
from .jacobian import Jacobian, jacobian_function
from .jvp import jvp_function
from .keep_results import KeepResults
from .linearize import Linearized, linearize_function
from .local_cells import with_local_cells
from .loop_layouts import LoopLayouts, loop_layouts_function
from .names import Fresh
from .narrow_products import NarrowProducts, narrow_products_function
from .pipeline import PASSES, Hook, Pass, Pipeline, Step, parse_pipeline, register_pass
from .residuals import Residuals, residuals_function
from .spec import CellName, FunctionName
from .standard import (
    CANONICALISE,
    SIMPLIFY,
    canonicalise_function,
    loop_passes,
    shape_loops_function,
    simplify_function,
)
from .thread_state import Threaded, ThreadState, thread_function
from .transpose import Transposed, transpose_function
from .trip_wire import TripWire, trip_wire_function

__all__ = [
    "CANONICALISE",
    "PASSES",
    "SIMPLIFY",
    "Batch",
    "Batched",
    "CellName",
    "Cse",
    "Dce",
    "DistributeLoops",
    "DumpTo",
    "Fold",
    "ForwardMode",
    "ForwardState",
    "Fresh",
    "FunctionName",
    "Gradient",
    "HoistInvariants",
    "HoistReads",
    "HoldRemats",
    "Hook",
    "Inline",
    "Jacobian",
    "KeepResults",
    "Linearize",
    "Linearized",
    "LoopLayouts",
    "NarrowProducts",
    "Pass",
    "PassError",
    "PassTextError",
    "Pipeline",
    "Print",
    "Residuals",
    "Step",
    "ThreadState",
    "Threaded",
    "Timing",
    "Transpose",
    "Transposed",
    "TripWire",
    "Verify",
    "batch_function",
    "canonicalise_function",
    "cse_function",
    "dce_function",
    "distribute_loops_function",
    "fold_function",
    "forward_state_function",
    "gradient_function",
    "hoist_invariants_function",
    "hoist_reads_function",
    "hold_remats_function",
    "inline_function",
    "inline_functions",
    "jacobian_function",
    "jvp_function",
    "linearize_function",
    "loop_layouts_function",
    "loop_passes",
    "narrow_products_function",
    "parse_pipeline",
    "register_pass",
    "residuals_function",
    "shape_loops_function",
    "simplify_function",
    "thread_function",
    "together",
    "transpose_function",
    "trip_wire_function",
    "with_local_cells",
]
