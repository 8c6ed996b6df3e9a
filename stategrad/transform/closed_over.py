"""The arrays that a traced function closes over, as operands of its program."""

import dataclasses

import jax

from stategrad import jax_compat as compat
from stategrad.ir import Function, IRTypeError, Operation, Region, reachable, walk
from stategrad.passes import inline_functions
from stategrad.trace import Traced

_LARGE = 1024


def with_arrays_as_parameters(traced: Traced) -> Traced:
    """The same with the arrays that it closes over as parameters: with others it is the same program, and
    what keeps the program keeps no array.
    Nested functions that close over large ones are put in place for that.
    """
    traced = dataclasses.replace(traced, function=_without_holders(traced.function))
    body = traced.function.body
    lifted = [op for op in body.operations if _is_array(op)]
    if not lifted:
        return traced
    rest = tuple(op for op in body.operations if op not in set(lifted))
    params = (*(op.results[0] for op in lifted), *body.params)
    body = Region(params, rest, body.results, body.locals, body.location)
    function = Function(traced.function.name, body, traced.function.attributes, traced.function.location)
    arrays = tuple(op.attributes["value"] for op in lifted)
    return dataclasses.replace(traced, function=function, captured=(*arrays, *traced.captured))


def _without_holders(function: Function) -> Function:
    """The function without calls of functions that hold large arrays, or call such."""
    holders: set[Function] = set()
    for each in reachable(function):
        if each is not function and any(_is_large(op) or _calls(op, holders) for op in walk(each.body)):
            holders.add(each)
    return inline_functions(function, holders) if holders else function


def _is_large(op: Operation) -> bool:
    return op.name == "constant" and getattr(op.attributes["value"], "size", 1) >= _LARGE


def _calls(op: Operation, functions: set[Function]) -> bool:
    return op.attributes.get("callee") in functions


def _is_array(op: Operation) -> bool:
    """Whether it is a constant that a call can be given: an array of exactly that type."""
    if op.name != "constant" or getattr(op.attributes["value"], "shape", None) != op.attributes["type"].shape:
        return False
    try:
        return compat.type_of_aval(jax.typeof(op.attributes["value"])) == op.attributes["type"]
    except IRTypeError:
        return False
