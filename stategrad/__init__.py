"""stategrad: differentiate and compile functions that read and write State."""

import gc

_collects = gc.isenabled()
gc.disable()  # what importing makes stays; to search all of JAX for garbage meanwhile would double our time
try:
    from . import errors, graph, ir, nn, passes, random, transform
    from .errors import (
        GradientError,
        NonFiniteError,
        RetraceWarning,
        StateError,
        StategradError,
        TraceError,
    )
    from .state import ParamState, State
    from .transform import (
        GradientTransform,
        ProgressBar,
        StateFinder,
        bounded_while_loop,
        checkpoint,
        checkpointed_for_loop,
        checkpointed_scan,
        cond,
        eval_shape,
        for_loop,
        fwd_grad,
        grad,
        hessian,
        hvp,
        ifelse,
        jacfwd,
        jacobian,
        jacrev,
        jit,
        jvp,
        linearize,
        make_ir,
        remat,
        scan,
        stop_gradient,
        switch,
        value_and_grad,
        vector_grad,
        vjp,
        vmap,
        while_loop,
    )
finally:
    if _collects:
        if not gc.get_freeze_count():  # what the user has frozen stays so
            # All there is joins the oldest generation as it is, not searched for garbage as if it were young.
            gc.freeze()
            gc.unfreeze()
        gc.enable()

__all__ = [
    "GradientError",
    "GradientTransform",
    "NonFiniteError",
    "ParamState",
    "ProgressBar",
    "RetraceWarning",
    "State",
    "StateError",
    "StateFinder",
    "StategradError",
    "TraceError",
    "bounded_while_loop",
    "checkpoint",
    "checkpointed_for_loop",
    "checkpointed_scan",
    "cond",
    "errors",
    "eval_shape",
    "for_loop",
    "fwd_grad",
    "grad",
    "graph",
    "hessian",
    "hvp",
    "ifelse",
    "ir",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jit",
    "jvp",
    "linearize",
    "make_ir",
    "nn",
    "passes",
    "random",
    "remat",
    "scan",
    "stop_gradient",
    "switch",
    "transform",
    "value_and_grad",
    "vector_grad",
    "vjp",
    "vmap",
    "while_loop",
]


def __dir__() -> list[str]:
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
