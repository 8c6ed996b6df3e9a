"""The transforms of functions that read and write States."""

from .branches import cond, ifelse, switch
from .derivative import Derivative
from .finder import StateFinder, eval_shape
from .fwd_grad import fwd_grad
from .gradient import grad, value_and_grad
from .gradient_transform import GradientTransform
from .jacobians import hessian, jacfwd, jacobian, jacrev
from .jit import Jitted, jit
from .jvp import hvp, jvp
from .loops import checkpointed_for_loop, checkpointed_scan, for_loop, scan
from .progress import ProgressBar
from .remat import checkpoint, remat, stop_gradient
from .stages import Staging, make_ir
from .vector_grad import vector_grad
from .vjp import linearize, vjp
from .vmap import vmap
from .while_loops import bounded_while_loop, while_loop

__all__ = [
    "Derivative",
    "GradientTransform",
    "Jitted",
    "ProgressBar",
    "Staging",
    "StateFinder",
    "bounded_while_loop",
    "checkpoint",
    "checkpointed_for_loop",
    "checkpointed_scan",
    "cond",
    "eval_shape",
    "for_loop",
    "fwd_grad",
    "grad",
    "hessian",
    "hvp",
    "ifelse",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jit",
    "jvp",
    "linearize",
    "make_ir",
    "remat",
    "scan",
    "stop_gradient",
    "switch",
    "value_and_grad",
    "vector_grad",
    "vjp",
    "vmap",
    "while_loop",
]
