"""stategrad: differentiate and compile functions that read and write State."""

from . import errors, graph, ir, nn, passes, random, transform
from .errors import GradientError, StateError, StategradError, TraceError
from .state import ParamState, State
from .transform import grad, jit, make_ir, value_and_grad

__all__ = [
    "GradientError",
    "ParamState",
    "State",
    "StateError",
    "StategradError",
    "TraceError",
    "errors",
    "grad",
    "graph",
    "ir",
    "jit",
    "make_ir",
    "nn",
    "passes",
    "random",
    "transform",
    "value_and_grad",
]
