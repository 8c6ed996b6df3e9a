"""A function of lax primitives as rows, differentiated by the rows' own rules, and held against jax."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategrad.ir import Builder, Operation, Type, Value, dtype_of
from stategrad.ir.evaluate import Machine
from stategrad.lax_structure import TABLE


# ------------------------------------------------------------------------------------------------ our side
class LeftToJax(Exception):
    """The table does not take an equation."""


def imported(b: Builder, jaxpr: Any, operands: Sequence[Value]) -> list[Value]:
    """The equations of a closed jaxpr through the table; every primitive must have an entry that takes it."""
    env: dict[Any, Value] = {}

    def value_of(atom: Any) -> Value:
        if hasattr(atom, "val"):
            return b.constant(np.asarray(atom.val), Type.of(np.asarray(atom.val)))
        return env[atom]

    consts = [b.constant(np.asarray(c), Type.of(np.asarray(c))) for c in jaxpr.consts]
    env.update(zip((*jaxpr.jaxpr.constvars, *jaxpr.jaxpr.invars), (*consts, *operands), strict=True))
    for eqn in jaxpr.jaxpr.eqns:
        types = [Type(dtype_of(v.aval.dtype), tuple(v.aval.shape)) for v in eqn.outvars]
        found = TABLE[eqn.primitive.name](b, eqn.params, [value_of(v) for v in eqn.invars], types)
        if found is NotImplemented:
            raise LeftToJax(eqn.primitive.name)
        found = found if isinstance(found, (tuple, list)) else [found]
        assert [v.type for v in found] == types
        env.update(zip(eqn.outvars, found, strict=True))
    return [value_of(v) for v in jaxpr.jaxpr.outvars]


class Program:
    """A function of jax as rows, with its tangents and cotangents emitted by the rows' own rules."""

    def __init__(self, function: Callable[..., Any], args: Sequence[Any]) -> None:
        self.b = Builder()
        self.params = [Value(Type.of(a)) for a in args]
        self.results = imported(
            self.b, jax.make_jaxpr(lambda *a: jax.tree.leaves(function(*a)))(*args), self.params
        )
        self.args = list(args)

    def run(
        self, results: Sequence[Value], params: Sequence[Value] = (), args: Sequence[Any] = ()
    ) -> list[Any]:
        region = self.b.region([*self.params, *params], results)
        with np.errstate(all="ignore"):
            return Machine({}).run(region, [*self.args, *args])

    def push(self) -> tuple[list[Value], list[Value | None], list[Operation]]:
        """Tangent parameters, the tangents of the results, and the operations on tangents."""
        seeds = [Value(p.type) for p in self.params if p.type.differentiable]
        tangents = dict(zip([p for p in self.params if p.type.differentiable], seeds, strict=True))
        primal = list(self.b.operations)
        for op in primal:
            given = [tangents.get(v) for v in op.operands]
            if any(t is not None for t in given):
                found = op.opdef.jvp_of(self.b, op, op.operands, given, op.results)
                tangents.update((r, t) for r, t in zip(op.results, found, strict=True) if t is not None)
        linear, active = [], set(seeds)
        for op in self.b.operations[len(primal) :]:
            if active.intersection(op.operands):
                active.update(op.results)
                linear.append(op)
        return seeds, [tangents.get(r) for r in self.results], linear

    def pull(self) -> tuple[list[Value], list[Value | None]]:
        """Cotangent parameters, one per result with a tangent, and the cotangents of the arguments."""
        seeds, tangents, linear = self.push()
        self.b.operations[:] = [op for op in self.b.operations if op not in linear]
        linear_values = {r for op in linear for r in op.results} | set(seeds)
        cotangents: dict[Value, Value] = {}
        given = [Value(t.type) for t in tangents if t is not None]
        for t, ct in zip([t for t in tangents if t is not None], given, strict=True):
            self._add(cotangents, t, ct)
        for op in reversed(linear):
            known = [None if v in linear_values else v for v in op.operands]
            found = op.opdef.transpose_of(self.b, op, [cotangents.get(r) for r in op.results], known)
            for v, ct in zip(op.operands, found, strict=True):
                if ct is not None:
                    self._add(cotangents, v, ct)
        return given, [cotangents.get(s) for s in seeds]

    def _add(self, cotangents: dict[Value, Value], v: Value, ct: Value) -> None:
        assert ct.type == v.type
        cotangents[v] = self.b.add(cotangents[v], ct) if v in cotangents else ct


# ------------------------------------------------------------------------------------------------ comparing
def close(found: Any, wanted: Any) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape
    short = wanted.dtype.itemsize < 4 and wanted.dtype.kind not in "iub"
    kind = np.complex128 if wanted.dtype.kind == "c" else np.float64
    rtol, atol = (2e-2, 1e-2) if short else (1e-9, 1e-11) if wanted.dtype.itemsize >= 8 else (1e-5, 1e-6)
    np.testing.assert_allclose(found.astype(kind), wanted.astype(kind), rtol=rtol, atol=atol)


def compare(function: Callable[..., Any], args: Sequence[Any], derivatives: bool = True) -> None:
    """Value, jvp and vjp of ours against those of jax."""
    program = Program(function, args)
    wanted = jax.tree.leaves(function(*map(jnp.asarray, args)))
    for found, right in zip(program.run(program.results), wanted, strict=True):
        assert found.dtype == right.dtype
        close(found, right)
    active = [i for i, a in enumerate(args) if np.asarray(a).dtype.kind in "fcV"]
    if derivatives and active:
        _compare_derivatives(function, args, active)


def _compare_derivatives(function: Callable[..., Any], args: Sequence[Any], active: list[int]) -> None:
    primals = [jnp.asarray(args[i]) for i in active]
    directions = [_like(x, 7 + i) for i, x in enumerate(primals)]
    smooth = _smooth(function, args, active)
    cts = [_like(y, 20 + i) for i, y in enumerate(jax.eval_shape(smooth, *primals))]
    pushed, pulled = jax.jit(
        lambda: (jax.jvp(smooth, primals, directions)[1], jax.vjp(smooth, *primals)[1](cts))
    )()

    program = Program(function, args)
    seeds, tangents, _ = program.push()
    kept = [t is not None for r, t in zip(program.results, tangents, strict=True) if r.type.differentiable]
    ours = program.run([t for t in tangents if t is not None], seeds, [np.asarray(d) for d in directions])
    for found, right in zip(ours, [t for t, k in zip(pushed, kept, strict=True) if k], strict=True):
        close(found, right)

    program = Program(function, args)
    given, cotangents = program.pull()
    used = [np.asarray(c) for c, k in zip(cts, kept, strict=True) if k]
    ours = iter(program.run([c for c in cotangents if c is not None], given, used))
    for ct, right in zip(cotangents, pulled, strict=True):
        close(next(ours) if ct is not None else np.zeros(right.shape), right)


def _smooth(function: Callable[..., Any], args: Sequence[Any], active: list[int]) -> Callable[..., Any]:
    """The differentiable results of a function as one of its differentiable arguments."""

    def smooth(*some: Any) -> list[Any]:
        full = list(map(jnp.asarray, args))
        for i, x in zip(active, some, strict=True):
            full[i] = x
        return [y for y in jax.tree.leaves(function(*full)) if jnp.issubdtype(y.dtype, jnp.inexact)]

    return smooth


def _like(x: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    found = rng.uniform(-1, 1, x.shape)
    return jnp.asarray(found + 1j * rng.uniform(-1, 1, x.shape) if x.dtype.kind == "c" else found, x.dtype)
