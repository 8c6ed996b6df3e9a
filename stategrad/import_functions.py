"""Functions of an import: where they come from, and finished ones under other names."""

from collections.abc import Mapping
from typing import Any

from stategrad.ir import Function, Location, Operation, Region, Source, clone_region, walk

from .user_frame import is_user_file, shortened


def is_users(jaxpr: Any) -> bool:
    """Whether the function that a jaxpr was traced from is the user's, not JAX's or ours."""
    file = jaxpr.debug_info.func_filename
    return file is not None and is_user_file(file)


def definition(jaxpr: Any) -> Location | None:
    """Where the function that a jaxpr was traced from begins, if it is the user's."""
    if not is_users(jaxpr):
        return None
    info = jaxpr.debug_info
    return Source(shortened(info.func_filename), info.func_lineno or 0)


def renamed(function: Function, name: str, instead: Mapping[Function, Function]) -> Function:
    """The function under another name, calling others instead; the same object if nothing changes."""
    callees = {f for op in walk(function.body) if isinstance(f := op.attributes.get("callee"), Function)}
    if name == function.name and all(instead.get(f, f) is f for f in callees):
        return function
    body = _with_callees(clone_region(function.body), instead)
    return Function(name, body, function.attributes, function.location)


def _with_callees(region: Region, instead: Mapping[Function, Function]) -> Region:
    operations = []
    for op in region.operations:
        attributes = op.attributes
        callee = attributes.get("callee")
        if isinstance(callee, Function):
            attributes = {**attributes, "callee": instead.get(callee, callee)}
        regions = tuple(_with_callees(r, instead) for r in op.regions)
        operations.append(Operation(op.opdef, op.operands, op.results, attributes, regions, op.location))
    return Region(region.params, tuple(operations), region.results, region.locals, region.location)
