"""The programs that JAX's rules for one primitive turn into, and how they are put where they are needed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from stategrad.ir import Builder, Function, Operation, Region, Value, clone_region

from . import jax_compat as compat


@dataclass(frozen=True, eq=False)
class ForeignProgram:
    """Operations to emit on values given for `params`.

    Attributes:
        given: for each result of the primitive whether `results` has its tangent; all true for other rules.
    """

    params: tuple[Value, ...]
    operations: tuple[Operation, ...]
    results: tuple[Value, ...]
    given: tuple[bool, ...]

    @staticmethod
    def of(function: Function) -> "ForeignProgram":
        """The program that is all of a function."""
        body = function.body
        return ForeignProgram(body.params, body.operations, body.results, (True,) * len(body.results))

    def emit(self, b: Builder, values: Sequence[Value]) -> list[Value]:
        """Emits the operations; gives the results. Their location is the builder's."""
        env = dict(zip(self.params, values, strict=True))
        for op in self.operations:
            regions = [clone_region(r) for r in op.regions]
            names = [v.name for v in op.results]
            found = b.emit(op.opdef, [env[v] for v in op.operands], op.attributes, regions, names)
            env.update(zip(op.results, found, strict=True))
        return [env[v] for v in self.results]


def jvp_program(
    apply: Callable[..., list[Any]],
    avals: Sequence[Any],
    results: Sequence[Any],
    active: Sequence[bool],
    import_program: Callable[[Any, str], Function],
) -> ForeignProgram:
    """The tangents of a primitive: parameters are its operands, its results, and the tangents of `active` operands."""
    given: list[bool] = []

    def rule(*values: Any) -> list[Any]:
        primals, rest = values[: len(avals)], iter(values[len(avals) :])
        pairs = compat.push_forward(apply, primals, [next(rest) if flag else None for flag in active])
        given[:] = [t is not None for _, t in pairs]
        return [*(x for x, _ in pairs), *(t for _, t in pairs if t is not None)]

    seeds = [a for a, flag in zip(avals, active, strict=True) if flag]
    function = import_program(jax.make_jaxpr(rule)(*avals, *seeds), "jvp")
    return _beside(function, len(avals), len(results), tuple(given))


def _beside(function: Function, operands: int, results: int, given: tuple[bool, ...]) -> ForeignProgram:
    """The part of a jvp that gives tangents, for a place where the primal results are already there."""
    body = function.body
    primal, tangents = body.results[:results], body.results[results:]
    stand_ins = [Value(v.type, v.name) for v in primal]
    known = {v: s for v, s in zip(primal, stand_ins, strict=True) if v not in body.params}
    needed = _needed(body, tangents, known)
    operations = tuple(_on(op, known) for op in needed)
    params = (*body.params[:operands], *stand_ins, *body.params[operands:])
    return ForeignProgram(params, operations, tuple(known.get(v, v) for v in tangents), given)


def _needed(body: Region, results: Iterable[Value], known: dict[Value, Value]) -> list[Operation]:
    """The operations that `results` depend on, apart from what is known."""
    wanted = {v for v in results if v not in known}
    kept: list[Operation] = []
    for op in reversed(body.operations):
        if op.external or any(v in wanted for v in op.results):
            kept.append(op)
            wanted.update(v for v in op.operands if v not in known)
    return kept[::-1]


def _on(op: Operation, known: dict[Value, Value]) -> Operation:
    if not any(v in known for v in op.operands):
        return op
    operands = tuple(known.get(v, v) for v in op.operands)
    return Operation(op.opdef, operands, op.results, op.attributes, op.regions, op.location)
