"""Passes: Module -> Module."""

if __name__ != "stategrad.passes":
    raise ImportError("import this package as stategrad.passes: under another name every class would exist twice")

from .errors import PassError, PassTextError
from .pipeline import PASSES, Hook, Pass, Pipeline, Step, parse_pipeline, register_pass
from .spec import CellName, FunctionName

__all__ = [
    "PASSES",
    "CellName",
    "FunctionName",
    "Hook",
    "Pass",
    "PassError",
    "PassTextError",
    "Pipeline",
    "Step",
    "parse_pipeline",
    "register_pass",
]
