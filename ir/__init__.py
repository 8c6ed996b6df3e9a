"""The IR: a small typed SSA language in which state reads and writes are explicit effects."""

if __name__ != "stategrad.ir":
    raise ImportError("import this package as stategrad.ir: under another name every class would exist twice")

from . import ops
from .build import Builder, clone_region
from .core import (
    NO_ATTRIBUTES,
    Cell,
    Effect,
    Function,
    Module,
    Names,
    Operation,
    Region,
    Type,
    Value,
    reachable,
    walk,
    zeros,
)
from .derivatives import Jvp, Linear, Undefined, Zero
from .dtypes import DType, dtype, dtype_of
from .errors import (
    DerivativeError,
    EvaluationError,
    IRError,
    IRSyntaxError,
    IRTypeError,
    IRVerifyError,
)
from .evaluate import Machine, evaluate
from .location import UNKNOWN, Derived, LazySource, Location, Source, Unknown
from .opaque import Opaque
from .opdef import OpDef, Row, Sample, lookup, register, row, sample
from .parse import parse
from .structured import StructuredOp
from .text import to_text
from .verify import verify

__all__ = [
    "NO_ATTRIBUTES",
    "UNKNOWN",
    "Builder",
    "Cell",
    "DType",
    "DerivativeError",
    "Derived",
    "Effect",
    "EvaluationError",
    "Function",
    "IRError",
    "IRSyntaxError",
    "IRTypeError",
    "IRVerifyError",
    "Jvp",
    "LazySource",
    "Linear",
    "Location",
    "Machine",
    "Module",
    "Names",
    "OpDef",
    "Opaque",
    "Operation",
    "Region",
    "Row",
    "Sample",
    "Source",
    "StructuredOp",
    "Type",
    "Undefined",
    "Unknown",
    "Value",
    "Zero",
    "clone_region",
    "dtype",
    "dtype_of",
    "evaluate",
    "lookup",
    "ops",
    "parse",
    "reachable",
    "register",
    "row",
    "sample",
    "to_text",
    "verify",
    "walk",
    "zeros",
]
