"""How JAX transforms `ir_call`: each derivative is a program of its own, made once by our passes."""

from collections.abc import Hashable, Sequence
from typing import Any

import jax.numpy as jnp

from stategrad import jax_compat
from stategrad.ir import DerivativeError, Function, Region
from stategrad.ir.record import record
from stategrad.passes import (
    batch_function,
    jvp_function,
    linearize_function,
    simplify_function,
    thread_function,
    transpose_function,
)
from stategrad.passes.gradient import differentiable_results

from .ir_call import Program, ir_call_p

Flags = tuple[bool, ...]


@record
class Halves:
    """A linearized program: `forward` gives results and residuals, `linear` maps residuals and tangents.

    `saved` are the results of `forward`, `forwarded` the arguments that `linear` takes before the tangents;
    `results` are the results that have a tangent.
    """

    forward: Program
    linear: Program
    saved: Sequence[int]
    forwarded: Sequence[int]
    results: Sequence[int]


def _program(made: Function) -> Program:
    """What a pass made, without the local cells that it used."""
    return Program(simplify_function(thread_function(made).function))


def linearized(program: Program, active: Flags) -> Halves:
    """The two halves of a program, differentiated by the flagged arguments."""

    def make() -> Halves:
        try:
            made = linearize_function(program.function, active)
        except DerivativeError:
            return _unsaved(program, active)
        forwarded = [i for i in made.forwarded if isinstance(i, int)]
        return Halves(_program(made.fwd), _program(made.lin), made.saved, forwarded, made.results)

    return program.derive(("linearize", active), make)


def _unsaved(program: Program, active: Flags) -> Halves:
    """Halves without residuals, where none can be saved: an unbounded loop has a derivative only forwards."""
    function = program.function
    results = differentiable_results(function)
    made = jvp_function(function, [i for i, flag in enumerate(active) if flag], results=results)
    body = made.body
    tangents = body.results[len(function.results) :]
    body = Region(body.params, body.operations, tangents, body.locals, body.location)
    facts = {"known": len(function.params)}
    linear = _program(Function(made.name, body, facts, made.location))
    return Halves(program, linear, (), range(len(function.params)), results)


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, program: Program) -> tuple[list[Any], list[Any]]:
    active = tuple(map(jax_compat.is_active, tangents))
    function = program.function
    zeros: list[Any] = [jax_compat.zero_tangent(v.type) for v in function.results]
    if not any(active):
        return program.bind(*primals), zeros
    halves = linearized(program, active)
    found = halves.forward.bind(*primals)
    known = [*(found[i] for i in halves.saved), *(primals[i] for i in halves.forwarded)]
    given = [t for t, flag in zip(tangents, active, strict=True) if flag]
    for i, t in zip(halves.results, halves.linear.bind(*known, *given), strict=True):
        zeros[i] = t
    return found[: len(function.results)], zeros


def transposed(program: Program, linear: Flags, given: Flags) -> tuple[Program, Sequence[int]]:
    """The pullback of a program linear in the flagged arguments, for cotangents of the flagged results.

    It takes the other arguments and then the cotangents; also told is which arguments it gives cotangents of.
    """

    def make() -> tuple[Program, Sequence[int]]:
        made = transpose_function(program.function, linear, given)
        return _program(made.function), made.results

    return program.derive(("transpose", linear, given), make)


def _transpose(cotangents: Sequence[Any], *operands: Any, program: Program) -> list[Any]:
    linear = tuple(map(jax_compat.is_linear, operands))
    given = tuple(map(jax_compat.is_active, cotangents))
    params = program.function.params
    found: list[Any] = [
        jax_compat.zero_tangent(v.type) if flag else None for v, flag in zip(params, linear, strict=True)
    ]
    if any(given):
        pullback, results = transposed(program, linear, given)
        known = [x for x, flag in zip(operands, linear, strict=True) if not flag]
        seeds = [ct for ct, flag in zip(cotangents, given, strict=True) if flag]
        for i, ct in zip(results, pullback.bind(*known, *seeds), strict=True):
            found[i] = ct
    return found


def batched(program: Program, flags: Flags, size: int, axis: Hashable = None) -> tuple[Program, Flags]:
    """The program with a leading batch axis on the flagged arguments, and which results carry that axis.

    Args:
        axis: the name of the axis, by which operations of the program may work along it.
    """

    def make() -> tuple[Program, Flags]:
        nowhere = [False] * len(program.function.results)
        made = batch_function(program.function, flags, size, results=nowhere, axis=axis)
        return _program(made.function), made.results

    return program.derive(("batch", flags, size, axis), make)


def _batch(
    operands: Sequence[Any], axes: Sequence[int | None], name: Any, size: int, *, program: Program
) -> tuple[list[Any], list[int | None]]:
    flags = tuple(axis is not None for axis in axes)
    leading = [
        x if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(operands, axes, strict=True)
    ]
    made, results = batched(program, flags, size, name)
    return made.bind(*leading), [0 if flag else None for flag in results]


jax_compat.define_transforms(ir_call_p, _jvp, _transpose, _batch)
