"""Calls outside of any trace that trace every time: each different program is compiled once.

No State is kept: the programs are effect-free, and the trace of each call finds the States that it is about.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import argument_names, check_leaves, function_name, leaf_paths
from stategrad.backend import Program
from stategrad.errors import NonFiniteError
from stategrad.ir import Function, IRTypeError, Module, Operation, Region, Type, to_text
from stategrad.ir.record import record
from stategrad.nonfinite import explain_trip, first_bad
from stategrad.passes import Pipeline
from stategrad.state import LOCKED, Epochs
from stategrad.trace import Leaf, Retyped, Traced, trace

from .recipes import AsIs
from .staging import Derived, Recipe, Staged, module_of, stage
from .trips import refuse_under_trace

_KEPT = 256


@record
class _Compiled:
    """A program, and which of the State leaves that its trace found it reads and writes."""

    program: Program
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    module: Module


_compiled: dict[Any, _Compiled] = {}


def run(fn: Callable[..., Any], *args: Any, debug_nan: bool = False) -> Any:
    """`fn(*args)`: a part of the trace that is current, or if there is none, traced and compiled.

    Raises:
        TraceError, StateError: as for `trace`.
        NonFiniteError: as for `call`.
    """
    check_leaves(jax.tree.leaves(args), argument_names(fn, args, {}), fn, "argument")
    if debug_nan:
        refuse_under_trace(function_name(fn))
    elif not compat.is_eager() or compat.jit_is_disabled():
        return fn(*args)
    return call(fn, AsIs(), args, {}, debug_nan)


def call(
    fn: Callable[..., Any],
    recipe: Recipe,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    debug_nan: bool = False,
) -> Any:
    """What `recipe` makes of `fn`, for these arguments.

    Every call traces, so a changed closure, global or flag is always seen. Calls whose programs come out
    equal share one compilation, whatever arrays the function closes over. States are committed together, or
    not at all. With `debug_nan`, something that is not finite among the results or the new values of States
    is an error, and nothing is committed.

    Raises:
        NonFiniteError: see `debug_nan`.
    """
    with LOCKED:
        traced = with_arrays_as_parameters(trace(fn, args, kwargs))
        derived = recipe.derive(traced)
        leaves = list(traced.leaves.values())
        compiled = _find(traced, derived, leaves, debug_nan)
        held = [leaves[i].slot.array for i in compiled.inputs]
        operands = [*held, *traced.captured, *jax.tree.leaves((args, kwargs))]
        found = compiled.program.compiled(*operands)
        if debug_nan:
            *found, finite = found
            if not finite:
                raise _tripped(traced, derived, compiled, operands, found)
        outputs = [leaves[i] for i in compiled.outputs]
        staged = Staged(
            compiled.program,
            (),
            tuple(outputs),
            traced.captured,
            traced.retyped,
            derived.retyped_at,
            derived.build,
            compiled.module,
        )
        results, new = staged.split(found)
        return commit_all(staged, results, outputs, new)


def _tripped(
    traced: Traced, derived: Derived, compiled: _Compiled, operands: Sequence[Any], found: Sequence[Any]
) -> NonFiniteError:
    leaves = [f"the State {cell.name!r}" for cell in traced.leaves]
    closed_over = ["an array that the function closes over"] * len(traced.captured)
    arguments = [f"argument {name!r}" for name in traced.arguments]
    results = leaf_paths(traced.tree, "the result")
    retyped = [f"the new value of the State {r.state.name!r}" for r in traced.retyped for _ in r.held.types]
    written = [f"the new value of {leaves[i]}" for i in compiled.outputs]
    names = [*results, *retyped, *derived.derivatives, *written]
    return explain_trip(
        compiled.program.function,
        operands,
        [*(leaves[i] for i in compiled.inputs), *closed_over, *arguments],
        [name for name, value in zip(names, found, strict=True) if first_bad(value) is not None],
        traced.function.name,
        derived.reverse,
    )


def _find(traced: Traced, derived: Derived, leaves: Sequence[Leaf], wired: bool) -> _Compiled:
    module = module_of(traced)
    key = (
        to_text(module, locations=wired),
        str(Pipeline(derived.passes)),
        derived.residuals,
        wired,
        compat.config_key(),
    )
    compiled = _compiled.pop(key, None) or _numbered(stage(traced, derived, wired=wired), leaves)
    _compiled[key] = compiled  # the most recently used one last
    if len(_compiled) > _KEPT:
        del _compiled[next(iter(_compiled))]
    return compiled


def _numbered(staged: Staged, leaves: Sequence[Leaf]) -> _Compiled:
    number = {leaf: i for i, leaf in enumerate(leaves)}
    inputs, outputs = (tuple(number[x] for x in side) for side in (staged.inputs, staged.outputs))
    return _Compiled(staged.program, inputs, outputs, staged.module)


# ---------------------------------------------------------------------------------------------- committing
def commit_all(staged: Staged, results: list[Any], outputs: Sequence[Leaf], new: Sequence[Any]) -> Any:
    """Commits everything, through an interrupt in the middle of it too."""
    try:
        return _commit(staged, results, outputs, new)
    except BaseException:
        _commit(staged, results, outputs, new)
        raise


def _commit(staged: Staged, results: list[Any], outputs: Sequence[Leaf], new: Sequence[Any]) -> Any:
    for leaf, array in zip(outputs, new, strict=True):
        slot = leaf.slot
        # JAX may give one array for two results, or an operand back: nobody may donate it.
        slot.array, slot.exclusive = array, False
    Epochs.sharing += 1
    return staged.deliver(results, _store)


def _store(retyped: Retyped, leaves: list[Any]) -> None:
    retyped.state.store(retyped.held.structure, leaves)


# ------------------------------------------------------------------------------------------------ closures
def with_arrays_as_parameters(traced: Traced) -> Traced:
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
