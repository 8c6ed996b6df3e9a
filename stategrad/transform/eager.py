"""Loops and branches called outside of any trace: traced at every call, each different program compiled once.

No State is kept: the programs are effect-free, and the trace of each call finds the States that it is about.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import argument_names, check_leaves
from stategrad.backend import Program
from stategrad.ir import Function, IRTypeError, Operation, Region, Type, to_text
from stategrad.state import LOCK, Epochs
from stategrad.trace import Leaf, Retyped, Traced, trace

from .jit import AsIs
from .staging import Staged, module_of, stage

_KEPT = 128


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """A program, and which of the State leaves that its trace found it reads and writes."""

    program: Program
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


_compiled: dict[Any, _Compiled] = {}


def run(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`: a part of the trace that is current, or if there is none, traced and compiled.

    Every call traces, so a changed closure, global or flag is always seen. Calls whose programs come out
    equal share one compilation, whatever arrays the function closes over. States are committed together, or
    not at all.

    Raises:
        TraceError: an argument or result is no array.
        StateError: a State is used where or how that is not possible.
    """
    check_leaves(jax.tree.leaves(args), argument_names(fn, args, {}), fn, "argument")
    if not compat.is_eager() or jax.config.jax_disable_jit:
        return fn(*args)
    with LOCK:
        traced = _with_arrays_as_parameters(trace(fn, args, {}, fresh=True))
        leaves = list(traced.leaves.values())
        compiled = _find(traced, leaves)
        operands = [leaves[i].slot.array for i in compiled.inputs]
        found = list(compiled.program.compiled(*operands, *traced.captured, *jax.tree.leaves(args)))
        mark = len(found) - len(compiled.outputs)
        outputs = [leaves[i] for i in compiled.outputs]
        _commit_all(traced.retyped, found[traced.results : mark], outputs, found[mark:])
        return traced.tree.unflatten(found[: traced.results])


def _find(traced: Traced, leaves: Sequence[Leaf]) -> _Compiled:
    key = to_text(module_of(traced), locations=False), compat.config_key()
    compiled = _compiled.pop(key, None) or _numbered(stage(traced, AsIs()), leaves)
    _compiled[key] = compiled  # the most recently used one last
    if len(_compiled) > _KEPT:
        del _compiled[next(iter(_compiled))]
    return compiled


def _numbered(staged: Staged, leaves: Sequence[Leaf]) -> _Compiled:
    number = {leaf: i for i, leaf in enumerate(leaves)}
    return _Compiled(
        staged.program, tuple(number[x] for x in staged.inputs), tuple(number[x] for x in staged.outputs)
    )


# ------------------------------------------------------------------------------------------------ committing
def _commit_all(
    retyped: Sequence[Retyped], their: Sequence[Any], outputs: Sequence[Leaf], arrays: Sequence[Any]
) -> None:
    """Commits everything, through an interrupt in the middle of it too."""
    try:
        _commit(retyped, their, outputs, arrays)
    except BaseException:
        _commit(retyped, their, outputs, arrays)
        raise


def _commit(
    retyped: Sequence[Retyped], their: Sequence[Any], outputs: Sequence[Leaf], arrays: Sequence[Any]
) -> None:
    for leaf, array in zip(outputs, arrays, strict=True):
        slot = leaf.slot
        # JAX may give one array for two results, or an operand back: nobody may donate it.
        slot.array, slot.exclusive = array, False
    Epochs.sharing += 1
    start = 0
    for each in retyped:
        end = start + len(each.held.types)
        each.state.store(each.held.structure, their[start:end])
        start = end


# ------------------------------------------------------------------------------------------------ closures
def _with_arrays_as_parameters(traced: Traced) -> Traced:
    """The same with the arrays that it closes over as parameters: with others it is the same program."""
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


def _is_array(op: Operation) -> bool:
    """Whether it is a constant that a call can be given: an array of exactly that type."""
    if op.name != "constant" or getattr(op.attributes["value"], "shape", None) != op.attributes["type"].shape:
        return False
    try:
        return _type_of(op.attributes["value"]) == op.attributes["type"]
    except IRTypeError:
        return False


def _type_of(value: Any) -> Type:
    return compat.type_of_aval(jax.typeof(value))
