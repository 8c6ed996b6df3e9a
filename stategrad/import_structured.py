"""How the structured primitives of JAX become ours: loops, branches, calls, checkpoint, states."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from stategrad.ir import Function, Region, Value, dtype, lookup

from . import jax_compat as compat
from .foreign_program import ForeignProgram
from .traced_programs import open_program, scan_groups

if TYPE_CHECKING:
    from .importing import Importer

Handler = Callable[["Importer", Any, Sequence[Value]], Sequence[Value]]
_BOOL, _I32 = dtype("bool"), dtype("i32")


def _row(name: str) -> Any:
    found = lookup(name)
    if found is None:
        raise LookupError(name)
    return found


_READ, _WRITE, _SCAN, _WHILE, _COND, _CALL, _REMAT = map(
    _row, ("read", "write", "scan", "while", "cond", "call", "remat")
)


# ------------------------------------------------------------------------------------- states
def _read(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    cell = at.imports.cell_of(equation.params, compat.type_of_aval(equation.outvars[0].aval))
    at.imports.states.read(cell, at)
    return at.b.emit(_READ, (), {"cell": cell}, names=(cell.name.rpartition(".")[2],))


def _write(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    cell = at.imports.cell_of(equation.params, operands[0].type)
    at.imports.states.write(cell, at, equation.params["creates"])
    return at.b.emit(_WRITE, operands, {"cell": cell})


# ------------------------------------------------------------------------------------- loops and branches
def _scan(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    params = equation.params
    const, carry = scan_groups(params, len(operands))
    location = at.b.location

    def reorder(values: Sequence[Value]) -> list[Value]:
        return [*values[const:], *values[:const]]

    def body(inner: "Importer", values: list[Value]) -> Region:
        return inner.region(reorder(values), inner.run(params["jaxpr"], values), location)

    attributes = {
        "carry": carry,
        "each": len(operands) - const - carry,
        "length": params["length"],
        "reverse": params["reverse"],
    }
    region = at.nested(params["jaxpr"], body)
    names = [v.name for v in (*region.params[:carry], *region.results[carry:])]
    return at.b.emit(_SCAN, reorder(operands), attributes, [region], names)


def _while(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    params = equation.params
    c, n = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    cond_const, body_const, carry = operands[:c], operands[c:n], operands[n:]
    location = at.b.location

    def condition(inner: "Importer", values: list[Value]) -> Region:
        (answer,) = inner.run(params["cond_jaxpr"], values)
        return inner.region([*values[c:], *values[:c]], [_any(inner, answer)], location)

    def body(inner: "Importer", values: list[Value]) -> Region:
        m = n - c
        results, more = inner.run(params["body_jaxpr"], values), []
        if _is_batched(params["cond_jaxpr"]):
            more = [Value(v.type, v.name) for v in cond_const]
            results = _masked(inner, params["cond_jaxpr"], more, values[m:], results)
        return inner.region([*values[m:], *values[:m], *more], results, location)

    regions = [at.nested(params["cond_jaxpr"], condition), at.nested(params["body_jaxpr"], body)]
    more = cond_const if _is_batched(params["cond_jaxpr"]) else ()
    attributes = {"carry": len(carry), "cond_const": c}
    names = [v.name for v in regions[1].params[: len(carry)]]
    return at.b.emit(_WHILE, [*carry, *cond_const, *body_const, *more], attributes, regions, names)


def _is_batched(condition: Any) -> bool:
    """Whether a condition answers for a batch of loops, as `jax.vmap` of a `while` makes it."""
    (answer,) = open_program(condition)[0].outvars
    return bool(answer.aval.shape)


def _any(inner: "Importer", answer: Value) -> Value:
    return inner.apply(jnp.any, [answer])[0] if answer.type.shape else answer


def _masked(
    inner: "Importer", condition: Any, consts: Sequence[Value], old: Sequence[Value], new: Sequence[Value]
) -> list[Value]:
    """What the carry of a batch of loops becomes: loops that have ended keep what they have."""
    (going,) = inner.run(condition, [*consts, *old])

    def choose(going: Any, new: Any, old: Any) -> Any:
        return jnp.where(going.reshape(going.shape + (1,) * (new.ndim - going.ndim)), new, old)

    return [inner.apply(choose, [going, x, y])[0] for x, y in zip(new, old, strict=True)]


def _cond(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    index, *args = operands
    regions = [at.nested(branch) for branch in equation.params["branches"]]
    if len(regions) == 2:
        index = at.flags.get(index, index)
    if index.type.dtype is not _I32 and (index.type.dtype is not _BOOL or len(regions) != 2):
        index = at.b.convert(index, to=_I32)
    return at.b.emit(_COND, [index, *args], {}, regions, ["cond"] * len(regions[0].results))


# ------------------------------------------------------------------------------------- calls
def _call(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    params = equation.params
    program = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
    if at.imports.is_inlined(program):
        return at.inline(program, operands)
    return _emit_call(at, at.imports.function(program, at), operands)


def _ir_call(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    function = equation.params["program"].function
    if at.imports.inline:
        return ForeignProgram.of(function).emit(at.b, operands)
    return _emit_call(at, at.imports.adopt(function), operands)


def _emit_call(at: "Importer", function: Function, operands: Sequence[Value]) -> Sequence[Value]:
    return at.b.emit(_CALL, operands, {"callee": function}, names=[function.name] * len(function.results))


def _remat(at: "Importer", equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    region = at.nested(equation.params["jaxpr"])
    return at.b.emit(_REMAT, operands, {}, [region], [v.name for v in region.results])


STRUCTURED: dict[str, Handler] = {
    "state_read": _read,
    "state_write": _write,
    "scan": _scan,
    "while": _while,
    "cond": _cond,
    "jit": _call,
    "pjit": _call,
    "closed_call": _call,
    "core_call": _call,
    "ir_call": _ir_call,
    "remat2": _remat,
    "checkpoint": _remat,
}
"""Handlers by the name of the primitive: `(importer, equation, operands) -> results`."""


def register_structured(name: str, handler: Handler) -> None:
    """Sets how the primitive of that name is imported."""
    STRUCTURED[name] = handler
