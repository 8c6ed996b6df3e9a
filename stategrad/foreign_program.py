"""The programs that JAX's rules for one primitive turn into, and how they are put where they are needed."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import jax

from stategrad.ir import Builder, Function, Location, Operation, Region, Value, clone_region
from stategrad.ir.record import record

from . import jax_compat as compat


@record
class ForeignProgram:
    """Operations to emit on values given for `params`.

    Attributes:
        given: for each result of the primitive whether `results` has its tangent; all true for other rules.
        tangents: how many of the parameters, the last ones, are tangents.
    """

    params: tuple[Value, ...]
    operations: tuple[Operation, ...]
    results: tuple[Value, ...]
    given: tuple[bool, ...]
    tangents: int = 0

    @staticmethod
    def of(function: Function) -> "ForeignProgram":
        """The program that is all of a function."""
        body = function.body
        return ForeignProgram(body.params, body.operations, body.results, (True,) * len(body.results))

    def emit(self, b: Builder, values: Sequence[Value], primal: Location | None = None) -> list[Value]:
        """Emits the operations; gives the results. They get the builder's location, or
        `primal` where they depend on no tangent.
        """
        env = dict(zip(self.params, values, strict=True))
        linear = set(self.params[len(self.params) - self.tangents :])
        for op in self.operations:
            place = None if any(v in linear for v in op.operands) else primal
            if place is None:
                linear.update(op.results)
            regions = [clone_region(r) for r in op.regions]
            names = [v.name for v in op.results]
            found = b.emit(op.opdef, [env[v] for v in op.operands], op.attributes, regions, names, place)
            env.update(zip(op.results, found, strict=True))
        return [env[v] for v in self.results]


Finish = Callable[[Region, tuple[bool, ...]], ForeignProgram]


def tangent_program(
    apply: Callable[..., list[Any]],
    avals: Sequence[Any],
    active: Sequence[bool],
    import_program: Callable[[Any, str], Function],
    finish: Finish,
) -> ForeignProgram:
    """The tangents of a primitive by JAX's rule for it.

    Args:
        apply: applies the primitive to values of JAX.
        avals: the JAX types of its operands.
        active: which of them have tangents.
        finish: makes the program from a region and flags. The region's parameters are the operands and their
            tangents, its results those of the primitive and the tangents of the flagged ones.
    """
    seeds = [a for a, flag in zip(avals, active, strict=True) if flag]

    def program(push: _Push) -> ForeignProgram:
        given: list[bool] = []
        closed = jax.make_jaxpr(_pushed(push, apply, active, given))(*avals, *seeds)
        return finish(import_program(closed, "jvp").body, tuple(given))

    try:
        found = program(compat.push_forward)
    except NotImplementedError:  # a primitive may have a rule for linearize alone
        return program(_linearized)
    linear = set(found.params[len(found.params) - len(seeds) :])
    return program(_linearized) if _mixes(found.operations, linear) else found


_Push = Callable[[Callable[..., list[Any]], Sequence[Any], Sequence[Any]], list[tuple[Any, Any]]]


def _pushed(
    push: _Push, apply: Callable[..., list[Any]], active: Sequence[bool], given: list[bool]
) -> Callable[..., list[Any]]:
    """A function of operands and tangents: the results, and their tangents as far as `given` will say."""

    def rule(*values: Any) -> list[Any]:
        n = len(active)
        rest = iter(values[n:])
        pairs = push(apply, values[:n], [next(rest) if flag else None for flag in active])
        given[:] = [t is not None for _, t in pairs]
        return [*(x for x, _ in pairs), *(t for _, t in pairs if t is not None)]

    return rule


def _linearized(
    apply: Callable[..., list[Any]], primals: Sequence[Any], tangents: Sequence[Any]
) -> list[tuple[Any, Any]]:
    """What `push_forward` gives, with loops split into a primal and a linear one. Dearer to trace."""
    active = [t is not None for t in tangents]

    def forward(*free: Any) -> list[Any]:
        each = iter(free)
        return apply(*(next(each) if flag else x for flag, x in zip(active, primals, strict=True)))

    free = [x for x, flag in zip(primals, active, strict=True) if flag]
    found, push = jax.linearize(forward, *free)
    pushed = push(*(t for t in tangents if t is not None))
    return [(x, None if t.dtype == jax.dtypes.float0 else t) for x, t in zip(found, pushed, strict=True)]


def _mixes(operations: Iterable[Operation], linear: set[Value]) -> bool:
    """Whether a loop carries values that depend on `linear` ones beside values that do not."""
    for op in operations:
        flags = [v in linear for v in op.operands]
        if not any(flags):
            continue
        if op.name == "scan" and not all(flags[: op.attributes["carry"]]):
            return True
        for region in op.regions:
            inner = op.operands[len(op.operands) - len(region.params) :]
            if _mixes(
                region.operations, {p for p, v in zip(region.params, inner, strict=True) if v in linear}
            ):
                return True
        linear.update(op.results)
    return False


def beside(op: Operation, body: Region, given: tuple[bool, ...]) -> ForeignProgram:
    """The part of a jvp that gives tangents, for a place where the results of `op` already are. They are
    parameters, between the operands and the tangents.
    """
    n, tangents = len(op.operands), body.results[len(op.results) :]
    stand_ins = [Value(v.type, v.name) for v in op.results]
    known = _known(op, body, stand_ins)
    operations = tuple(_on(each, known) for each in _needed(body, tangents, known))
    params = (*body.params[:n], *stand_ins, *body.params[n:])
    results = tuple(known.get(v, v) for v in tangents)
    return ForeignProgram(params, operations, results, given, len(body.params) - n)


def whole(op: Operation, body: Region, given: tuple[bool, ...]) -> ForeignProgram:
    """All of a jvp: results, and tangents."""
    tangents = len(body.params) - len(op.operands)
    return ForeignProgram(body.params, body.operations, body.results, given, tangents)


def _known(op: Operation, body: Region, results: Sequence[Value]) -> dict[Value, Value]:
    """What in the jvp equals a result of the operation itself.

    That is the same primitive on the same operands. What the jvp gives as primal results may differ from it
    where results mean nothing (above the diagonal in `cholesky`).
    """
    known: dict[Value, Value] = {}
    operands, key = body.params[: len(op.operands)], parameter_key(op.attributes)
    for each in body.operations:
        if each.opdef is op.opdef and each.operands == operands and parameter_key(each.attributes) == key:
            known.update(zip(each.results, results, strict=True))
    return known


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


# ---------------------------------------------------------------------------------------------- keys
class _Parameter:
    """A parameter as part of a key: by value and class, or by identity where it has no hash."""

    __slots__ = ("_hash", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self._hash: int | None = hash(value)
        except TypeError:
            self._hash = None

    def __hash__(self) -> int:
        return id(self.value) if self._hash is None else self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Parameter) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or (self._hash is not None and bool(self.value == other.value))


def parameter_key(attributes: Mapping[str, Any]) -> Hashable:
    """A key for the parameters of a primitive, whatever they are."""
    return tuple((name, _Parameter(value)) for name, value in attributes.items())
