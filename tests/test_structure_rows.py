"""Shapes, indexing, reductions and products against jax: import, value, jvp and vjp of single primitives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategrad.ir import Builder, Operation, Type, Value, dtype_of
from stategrad.ir.evaluate import Machine
from stategrad.lax_structure import TABLE

Case = tuple[str, Callable[..., Any], tuple[Any, ...]]


# ------------------------------------------------------------------------------------------------ arguments
def reals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + 100 * len(shape)).uniform(-1, 1, shape)


def ints(*values: Any, to: str = "int32") -> np.ndarray:
    return np.array(values, to)


def scalar(value: int, to: str = "int32") -> np.ndarray:
    return np.array(value, to)


# ------------------------------------------------------------------------------------------------ our side
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
        assert found is not NotImplemented, eqn
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
    def smooth(*some: Any) -> list[Any]:
        full = list(map(jnp.asarray, args))
        for i, x in zip(active, some, strict=True):
            full[i] = x
        return [y for y in jax.tree.leaves(function(*full)) if jnp.issubdtype(y.dtype, jnp.inexact)]

    primals = [jnp.asarray(args[i]) for i in active]
    directions = [_like(x, 7 + i) for i, x in enumerate(primals)]
    program = Program(function, args)
    seeds, tangents, _ = program.push()
    ours = program.run([t for t in tangents if t is not None], seeds, [np.asarray(d) for d in directions])
    values, theirs = jax.jvp(smooth, primals, directions)
    kept = [t is not None for r, t in zip(program.results, tangents, strict=True) if r.type.differentiable]
    for found, right in zip(ours, [t for t, k in zip(theirs, kept, strict=True) if k], strict=True):
        close(found, right)

    program = Program(function, args)
    given, cotangents = program.pull()
    cts = [_like(y, 20 + i) for i, y in enumerate(values)]
    used = [np.asarray(c) for c, k in zip(cts, kept, strict=True) if k]
    ours = iter(program.run([c for c in cotangents if c is not None], given, used))
    theirs = jax.vjp(smooth, *primals)[1](cts)
    for ct, right in zip(cotangents, theirs, strict=True):
        close(next(ours) if ct is not None else np.zeros(right.shape), right)


def _like(x: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    found = rng.uniform(-1, 1, x.shape)
    return jnp.asarray(found + 1j * rng.uniform(-1, 1, x.shape) if x.dtype.kind == "c" else found, x.dtype)


def run(cases: Sequence[Case]) -> Any:
    return pytest.mark.parametrize(
        ("function", "args"), [pytest.param(f, a, id=name) for name, f, a in cases]
    )


@pytest.fixture(autouse=True)
def _x64() -> Any:
    with jax.enable_x64(True):
        yield


# ------------------------------------------------------------------------------------------------ shapes
SHAPES: list[Case] = [
    ("reshape", lambda x: lax.reshape(x, (3, 4)), (reals(2, 6),)),
    ("reshape permuted", lambda x: lax.reshape(x, (12,), (1, 0)), (reals(2, 6),)),
    ("squeeze", lambda x: lax.squeeze(x, (0, 2)), (reals(1, 3, 1),)),
    ("expand_dims", lambda x: lax.expand_dims(x, (0, 2)), (reals(3),)),
    ("transpose", lambda x: lax.transpose(x, (2, 0, 1)), (reals(2, 3, 4),)),
    ("broadcast", lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (0, 2)), (reals(2, 1),)),
    ("broadcast complex", lambda x: lax.broadcast_in_dim(x, (2, 3), (1,)), (reals(3) + 2j,)),
    ("tile", lambda x: jax.lax.tile(x, (2, 1, 3)), (reals(2, 3, 1),)),
    ("rev", lambda x: lax.rev(x, (1, 0)), (reals(2, 3),)),
    ("concatenate", lambda x, y: lax.concatenate([x, y, x], 1), (reals(2, 1), reals(2, 3))),
    ("stack", lambda x, y: jax.lax.stack([x, y], 1), (reals(2, 3), reals(2, 3, seed=1))),
    ("unstack", lambda x: jax.lax.unstack(x, 1), (reals(2, 3),)),
    ("split", lambda x: lax.split(x, (1, 0, 2), 1), (reals(2, 3),)),
    ("slice", lambda x: lax.slice(x, (1, 0), (4, 5), (2, 3)), (reals(5, 5),)),
    ("slice plain", lambda x: lax.slice(x, (1,), (4,)), (reals(5),)),
    ("slice nothing", lambda x: lax.slice(x, (1,), (1,)), (reals(5),)),
    ("pad", lambda x, p: lax.pad(x, p, ((1, 2, 0), (0, 1, 2))), (reals(2, 3), reals())),
    ("pad negative", lambda x, p: lax.pad(x, p, ((-1, 2, 1), (1, -2, 0))), (reals(3, 4), reals())),
    ("pad crossing", lambda x, p: lax.pad(x, p, ((-3, 4, 0),)), (reals(2), reals())),
    ("pad nothing", lambda x, p: lax.pad(x, p, ((1, 1, 2),)), (reals(0), reals())),
]


@run(SHAPES)
def test_shapes(function: Any, args: Any) -> None:
    compare(function, args)


# ------------------------------------------------------------------------------------------------ indexing
def gather(
    offset: Any, collapsed: Any, index_map: Any, sizes: Any, batch: Any = ((), ()), **options: Any
) -> Any:
    numbers = lax.GatherDimensionNumbers(offset, collapsed, index_map, *batch)
    return lambda x, i: lax.gather(x, i, numbers, sizes, **options)


def scatter(add: Any, window: Any, inserted: Any, dims: Any, batch: Any = ((), ()), **options: Any) -> Any:
    numbers = lax.ScatterDimensionNumbers(window, inserted, dims, *batch)
    return lambda x, i, u: add(x, i, u, numbers, **options)


ROW = ints([0], [3], [-1], [1], [1])
POINTS = ints([[0, 1], [1, 2]], [[2, 0], [-1, 1]], [[1, 3], [0, 0]])
EACH = ints([[0], [5]], [[2], [1]])
OWN = ((0,), (0,))
DISTINCT = ints([0], [2], [5], to="int64")

INDEXING: list[Case] = [
    (
        "dynamic_slice",
        lambda x, i, j: lax.dynamic_slice(x, (i, j), (2, 3), allow_negative_indices=False),
        (reals(4, 5), scalar(1), scalar(3)),
    ),
    (
        "dynamic_slice negative",
        lambda x, i: lax.dynamic_slice_p.bind(x, i, slice_sizes=(2,)),
        (reals(4), scalar(-3, "int64")),
    ),
    (
        "dynamic_update_slice",
        lambda x, u, i: lax.dynamic_update_slice_p.bind(x, u, i, i),
        (reals(3, 4), reals(2, 2), scalar(2)),
    ),
    ("gather clip", gather((1,), (0,), (0,), (1, 3), mode="clip"), (reals(3, 4), ROW)),
    ("gather fill", gather((1,), (0,), (0,), (1, 2), mode="fill", fill_value=0), (reals(3, 4), ROW)),
    ("gather filled", gather((1,), (0,), (0,), (1, 2), mode="fill", fill_value=7.5), (reals(3, 4), ROW)),
    ("gather NaN", gather((1,), (0,), (0,), (1, 2), mode="fill"), (reals(3, 4), ROW)),
    ("gather integers", gather((), (0,), (0,), (1,), mode="fill"), (ints(3, 4, 5), ROW)),
    ("gather bytes", gather((), (0,), (0,), (1,), mode="fill"), (ints(3, 4, 5, to="uint8"), ROW)),
    ("gather bools", gather((), (0,), (0,), (1,), mode="fill"), (ints(0, 1, 0, to="bool"), ROW)),
    ("gather promise", gather((1,), (0,), (0,), (1, 4), mode="promise_in_bounds"), (reals(9, 4), DISTINCT)),
    (
        "gather points",
        gather((1,), (0, 2), (2, 0), (1, 2, 1), mode="fill", fill_value=0),
        (reals(3, 4, 3), POINTS),
    ),
    ("gather blocks", gather((0, 3), (), (0, 1), (2, 2), mode="clip"), (reals(3, 4), POINTS)),
    (
        "gather each",
        gather((1,), (1,), (1,), (1, 1, 2), OWN, mode="fill", fill_value=0),
        (reals(2, 4, 3), EACH),
    ),
    (
        "gather u8",
        gather((), (0,), (0,), (1,), mode="fill"),
        (reals(200), ints([199], [200], [255], to="uint8")),
    ),
    ("scatter clip", scatter(lax.scatter, (1,), (0,), (0,), mode="clip"), (reals(3, 4), ROW, reals(5, 3))),
    ("scatter drop", scatter(lax.scatter, (1,), (0,), (0,), mode="drop"), (reals(3, 4), ROW, reals(5, 4))),
    (
        "scatter unique",
        scatter(lax.scatter, (1,), (0,), (0,), unique_indices=True, mode="drop"),
        (reals(4, 2), DISTINCT, reals(3, 2)),
    ),
    (
        "scatter overlapping",
        scatter(lax.scatter, (1,), (), (0,), mode="drop"),
        (reals(5), ints([0], [1], [3], [4], [2]), reals(5, 2)),
    ),
    (
        "scatter_add clip",
        scatter(lax.scatter_add, (1,), (0,), (0,), mode="clip"),
        (reals(3, 4), ROW, reals(5, 3)),
    ),
    (
        "scatter_add drop",
        scatter(lax.scatter_add, (1,), (0,), (0,), mode="drop"),
        (reals(3, 4), ROW, reals(5, 4)),
    ),
    (
        "scatter_add promise",
        scatter(lax.scatter_add, (1,), (0,), (0,), mode="promise_in_bounds"),
        (reals(9, 4), DISTINCT, reals(3, 4)),
    ),
    (
        "scatter_add blocks",
        scatter(lax.scatter_add, (0, 3), (), (0, 1), mode="drop"),
        (reals(3, 4), POINTS, reals(2, 3, 2, 2)),
    ),
    (
        "scatter_add each",
        scatter(lax.scatter_add, (2,), (1,), (1,), OWN, mode="drop"),
        (reals(2, 4, 3), EACH, reals(2, 2, 3)),
    ),
    (
        "scatter_sub",
        scatter(lax.scatter_sub, (1,), (0,), (0,), mode="drop"),
        (reals(3, 4), ROW, reals(5, 4)),
    ),
]


@run(INDEXING)
def test_indexing(function: Any, args: Any) -> None:
    compare(function, args)


def test_a_short_index_reaches_places_it_cannot_name() -> None:
    """The derivative is not compared: jax's own clamps 255 to 290 in eight bits, to 34."""
    compare(
        lambda x, i: lax.dynamic_slice(x, (i,), (10,), allow_negative_indices=False),
        (reals(300), scalar(255, "uint8")),
        derivatives=False,
    )


# ------------------------------------------------------------------------------------------------ reductions
TIES = np.array([[1.0, 3.0, 3.0], [3.0, 0.0, 2.0]])
ZEROS = np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 4.0], [1.5, 2.5, -1.0]])
NANS = np.array([0.5, np.nan, -0.0, 0.0, np.inf, -np.inf, np.nan, -1.0])


def reduce_(primitive: Any, *axes: int) -> Any:
    return lambda x: primitive.bind(x, axes=axes)


REDUCTIONS: list[Case] = [
    ("sum", lambda x: lax.reduce_sum(x, (0, 2)), (reals(2, 3, 4),)),
    ("sum of nothing", lambda x: lax.reduce_sum(x, (0,)), (reals(0, 3),)),
    ("sum of halves", lambda x: lax.reduce_sum(x, (0,)), (reals(100).astype(jnp.bfloat16),)),
    ("sum of integers", lambda x: lax.reduce_sum(x, (0,)), (ints(100, 100, 100, to="int8"),)),
    ("sum of complex", lambda x: lax.reduce_sum(x, (0,)), (reals(3) * 1j,)),
    ("prod", lambda x: lax.reduce_prod(x, (0, 2)), (reals(2, 3, 3),)),
    ("prod of zeros", lambda x: lax.reduce_prod(x, (1,)), (ZEROS,)),
    ("prod of nothing", lambda x: lax.reduce_prod(x, (1,)), (reals(2, 0),)),
    ("prod of complex", lambda x: lax.reduce_prod(x, (0,)), (reals(3) + 1j,)),
    ("max", lambda x: lax.reduce_max(x, (1,)), (TIES,)),
    ("max of all", lambda x: lax.reduce_max(x, (0, 1)), (TIES,)),
    ("max of NaN", lambda x: lax.reduce_max(x, (0,)), (NANS,)),
    ("max of integers", lambda x: lax.reduce_max(x, (0,)), (ints(-3, -5, to="int8"),)),
    ("min", lambda x: lax.reduce_min(x, (0,)), (TIES,)),
    ("and", lambda x: lax.reduce_and(x, (0,)), (ints([1, 0], [1, 1], to="bool"),)),
    ("and of bits", lambda x: lax.reduce_and(x, (0,)), (ints(7, -2),)),
    ("or", lambda x: lax.reduce_or(x, (0, 1)), (ints([1, 0], [1, 1], to="bool"),)),
    ("or of bits", lambda x: lax.reduce_or(x, (0,)), (ints(5, 8, to="uint8"),)),
    ("argmax", lambda x: lax.argmax(x, 1, np.int32), (TIES,)),
    ("argmax of NaN", lambda x: lax.argmax(x, 0, np.int64), (NANS,)),
    ("argmin", lambda x: lax.argmin(x, 0, np.int32), (TIES,)),
    ("argmin of integers", lambda x: lax.argmin(x, 0, np.int32), (ints(3, 1, 1, to="uint8"),)),
    ("cumsum", lambda x: lax.cumsum(x, 1), (reals(2, 5),)),
    ("cumsum reversed", lambda x: lax.cumsum(x, 0, reverse=True), (reals(4, 2),)),
    ("cumprod", lambda x: lax.cumprod(x, 1), (ZEROS,)),
    ("cumprod reversed", lambda x: lax.cumprod(x, 0, reverse=True), (ZEROS,)),
    ("sort", lambda x: lax.sort(x, dimension=0), (reals(5, 2),)),
    ("sort NaN", lambda x: lax.sort(x), (NANS,)),
    (
        "sort by keys",
        lambda x, y, z: lax.sort((x, y, z), dimension=1, num_keys=2),
        (ints([1, 0, 1, 0, 1], [2, 2, 2, 0, 0]), np.round(reals(2, 5), 1), reals(2, 5, seed=2)),
    ),
    (
        "sort stably",
        lambda x, y: lax.sort((x, y), num_keys=1),
        (np.array([0.0, -0.0, 1.0, np.nan, -np.nan, 0.0]), reals(6)),
    ),
]


@run(REDUCTIONS)
def test_reductions(function: Any, args: Any) -> None:
    compare(function, args, derivatives=not any(np.isnan(a).any() for a in args if a.dtype.kind == "f"))


# ------------------------------------------------------------------------------------------------ products
def dot(contract: Any, batch: Any = ((), ()), **options: Any) -> Any:
    return lambda x, y: lax.dot_general(x, y, (contract, batch), **options)


HALF = jnp.bfloat16

DOTS: list[Case] = [
    ("matmul", dot(((1,), (0,))), (reals(2, 3), reals(3, 4))),
    ("inner", dot(((0,), (0,))), (reals(3), reals(3, seed=1))),
    ("outer", dot(((), ())), (reals(2), reals(3))),
    ("crossed", dot(((2, 0), (0, 1))), (reals(3, 2, 4), reals(4, 3, 5))),
    ("batched", dot(((1,), (2,)), ((2, 0), (0, 1))), (reals(2, 4, 3), reals(3, 2, 4, 5))),
    ("batched vectors", dot(((0, 2), (1, 0)), ((1,), (2,))), (reals(2, 3, 4), reals(4, 2, 3, 2))),
    ("nothing to sum", dot(((1,), (0,))), (reals(2, 0), reals(0, 3))),
    ("complex", dot(((1,), (0,))), (reals(2, 3) + 1j, reals(3, 2) * 1j)),
    ("precise", dot(((1,), (0,)), precision=("high", "highest")), (reals(2, 3), reals(3, 2))),
    ("halves", dot(((1,), (0,))), (reals(2, 3).astype(HALF), reals(3, 2).astype(HALF))),
    (
        "halves to f32",
        dot(((1,), (0,)), preferred_element_type=np.float32),
        (reals(2, 3).astype(HALF), reals(3, 2).astype(HALF)),
    ),
    (
        "bytes to i32",
        dot(((1,), (0,)), preferred_element_type=np.int32),
        (ints([100, 100], to="int8"), ints(100, 100, to="int8")),
    ),
]


@run(DOTS)
def test_dot(function: Any, args: Any) -> None:
    compare(function, args)


def conv(strides: Any, padding: Any, numbers: Any = None, **options: Any) -> Any:
    return lambda x, k: lax.conv_general_dilated(x, k, strides, padding, dimension_numbers=numbers, **options)


CONVS: list[Case] = [
    ("plain", conv((1,), "VALID"), (reals(2, 3, 5), reals(4, 3, 2))),
    ("same", conv((2, 1), "SAME"), (reals(1, 2, 5, 4), reals(3, 2, 3, 2))),
    ("layouts", conv((1, 2), "SAME", ("NHWC", "HWIO", "CNWH")), (reals(2, 4, 5, 3), reals(2, 3, 3, 2))),
    ("strides past the end", conv((3,), [(0, 0)]), (reals(1, 1, 6), reals(1, 1, 2))),
    ("negative padding", conv((2,), [(-1, 2)]), (reals(1, 2, 6), reals(2, 2, 2))),
    ("padding both removes", conv((1,), [(-2, -1)]), (reals(1, 1, 7), reals(1, 1, 3))),
    (
        "dilations",
        conv((2, 1), [(2, 1), (0, 3)], lhs_dilation=(2, 3), rhs_dilation=(1, 2)),
        (reals(2, 2, 3, 3), reals(2, 2, 2, 3)),
    ),
    (
        "dilated and cut",
        conv((2,), [(-2, -1)], lhs_dilation=(3,), rhs_dilation=(2,)),
        (reals(1, 2, 5), reals(3, 2, 3)),
    ),
    ("feature groups", conv((1,), "SAME", feature_group_count=3), (reals(2, 6, 4), reals(3, 2, 2))),
    ("depthwise", conv((2,), "SAME", feature_group_count=2), (reals(1, 2, 5), reals(4, 1, 3))),
    ("batch groups", conv((2,), [(1, 0)], batch_group_count=2), (reals(4, 3, 4), reals(4, 3, 2))),
    ("transposed", conv((1,), [(2, 2)], lhs_dilation=(2,)), (reals(1, 2, 3), reals(2, 2, 3))),
    ("no places", conv((), []), (reals(2, 3), reals(4, 3))),
    ("kernel too long", conv((1,), [(0, 0)]), (reals(1, 1, 2), reals(1, 1, 4))),
    (
        "halves to f32",
        conv((1,), "VALID", preferred_element_type=np.float32),
        (reals(1, 2, 4).astype(HALF), reals(1, 2, 2).astype(HALF)),
    ),
]


@run(CONVS)
def test_conv(function: Any, args: Any) -> None:
    compare(function, args)


# ------------------------------------------------------------------------------------------------ left to jax
FOREIGN: list[Case] = [
    ("algorithm", dot(((1,), (0,)), precision="F32_F32_F32"), (reals(2, 3), reals(3, 2))),
    ("complex conv", conv((1,), "VALID"), (reals(1, 1, 4) * 1j, reals(1, 1, 2) * 1j)),
    ("complex keys", lambda x: lax.sort(x), (reals(3) * 1j,)),
]


@run(FOREIGN)
def test_what_the_rows_cannot_do_is_left_to_jax(function: Any, args: Any) -> None:
    with pytest.raises(AssertionError):
        Program(function, args)
