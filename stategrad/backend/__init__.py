"""The backend: effect-free programs as StableHLO, compiled by JAX and usable under all of its transforms."""

from . import custom_rules, transforms
from .hlo import Hlo, lower_function
from .ir_call import Program, bind_function, compile_function, ir_call_p, jax_effects, stablehlo_text

__all__ = [
    "Hlo",
    "Program",
    "bind_function",
    "compile_function",
    "custom_rules",
    "ir_call_p",
    "jax_effects",
    "lower_function",
    "stablehlo_text",
    "transforms",
]
