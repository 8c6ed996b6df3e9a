"""The transforms of functions that read and write States."""

from .derivative import Derivative
from .gradient import grad, value_and_grad
from .jit import Jitted, jit
from .stages import Staging, make_ir

__all__ = ["Derivative", "Jitted", "Staging", "grad", "jit", "make_ir", "value_and_grad"]
