"""What every row must obey, and both modes of differentiation of straight-line programs, in simplest form."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_dtypes
import numpy as np

from stategrad.backend import compile_function
from stategrad.ir import (
    Builder,
    DerivativeError,
    DType,
    Effect,
    Function,
    Module,
    Row,
    Sample,
    Type,
    Undefined,
    Value,
    dtype,
    dtype_of,
    parse,
    to_text,
    verify,
)
from stategrad.ir.evaluate import evaluate
from stategrad.ir.opdef import ROWS

STEP = 1e-6
TOLERANCE = {"f64": 1e-12, "c128": 1e-12, "f32": 4e-6, "c64": 4e-6, "f16": 2e-3, "bf16": 1.6e-2}
BATCH = 2


# ---------------------------------------------------------------------------------------------- samples
def plain_rows() -> list[Row]:
    """The rows that compute: not effects, not structured operations."""
    return [r for _, r in sorted(ROWS.items()) if isinstance(r, Row) and r.effect is Effect(0)]


def cases() -> Iterator[tuple[str, Row, Sample]]:
    """Each row with each of its samples, and a name for the pair."""
    for row in plain_rows():
        for i, sample in enumerate(row.samples):
            yield f"{row.name}-{i}-{','.join(map(str, sample.types))}", row, sample


def in_double(value: Any) -> Any:
    """A sample, or what stands in its attributes, with real and complex element types in double precision."""
    if isinstance(value, Sample):
        types, attributes = in_double(value.types), in_double(value.attributes)
        return Sample(types, attributes, value.low, value.high, value.ints)
    if isinstance(value, Mapping):
        return {name: in_double(v) for name, v in value.items()}
    if isinstance(value, tuple):
        return tuple(map(in_double, value))
    if isinstance(value, Type):
        return value.with_dtype(in_double(value.dtype))
    if isinstance(value, DType):
        return {"f": dtype("f64"), "c": dtype("c128")}.get(value.kind, value)
    if isinstance(value, np.ndarray):
        return value.astype(in_double(dtype_of(value.dtype)).numpy)
    return value


def random_array(type: Type, rng: np.random.Generator, sample: Sample) -> np.ndarray:
    """An operand as the sample describes it."""
    kind, shape = type.dtype.kind, type.shape
    if kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind in "iu":
        return np.asarray(rng.integers(*sample.ints, shape, endpoint=True)).astype(type.dtype.numpy)
    drawn = np.asarray(rng.uniform(sample.low, sample.high, shape))
    if kind == "c":
        drawn = drawn + 1j * rng.uniform(sample.low, sample.high, shape)
    return np.asarray(drawn).astype(type.dtype.numpy)


def random_arrays(types: Sequence[Type], sample: Sample, seed: int = 0) -> list[np.ndarray]:
    """Operands as the sample describes them."""
    rng = np.random.default_rng(seed)
    return [random_array(t, rng, sample) for t in types]


ANY = Sample(())
"""Where operands may be anything: between −1 and 1."""


def program(row: Row, samples: Sequence[Sample]) -> Function:
    """A function that applies the row to each sample's operands."""
    b, params, results = Builder(), [], []
    for sample in samples:
        operands = [b.param(t, "x") for t in sample.types]
        params += operands
        results += b.emit(row, operands, sample.attributes)
    return b.function("f", params, results)


# ---------------------------------------------------------------------------------------------- comparing
def same(found: Any, expected: Any, tolerance: float | None = None, what: str = "") -> None:
    """Demands equal types and, up to rounding, equal numbers; NaN equals NaN."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    element = dtype_of(found.dtype)
    if element.kind in "biu":
        np.testing.assert_array_equal(found, expected, err_msg=what)
        return
    epsilon = 4 * float(ml_dtypes.finfo(found.dtype).eps)
    bound = TOLERANCE.get(element.name, epsilon) if tolerance is None else tolerance
    wide = np.complex128 if element.kind == "c" else np.float64
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            found.astype(wide), expected.astype(wide), rtol=bound, atol=bound, err_msg=what
        )


# ---------------------------------------------------------------------------------------------- derivatives
def jvp_function(function: Function) -> Function:
    """From primals, then a tangent for each differentiable parameter, to a tangent for each such result."""
    b, tangents = Builder(), {}
    params = [b.param(v.type) for v in function.params]
    env = dict(zip(function.params, params, strict=True))
    for old, new in zip(function.params, params, strict=True):
        if old.type.differentiable:
            tangents[new] = b.param(old.type)
    params += tangents.values()
    for op in function.body.operations:
        operands = [env[v] for v in op.operands]
        results = b.emit(op.opdef, operands, op.attributes)
        env.update(zip(op.results, results, strict=True))
        given = [tangents.get(v) for v in operands]
        if any(t is not None for t in given):
            found = op.opdef.jvp_of(b, op, operands, given, results)
            tangents.update((y, t) for y, t in zip(results, found, strict=True) if t is not None)
    results = [env[v] for v in function.results if v.type.differentiable]
    return b.function("jvp", params, [tangents[y] if y in tangents else b.zeros(y.type) for y in results])


def vjp_function(jvp: Function, known: int) -> Function:
    """The transpose of `jvp` in all but the first `known` parameters; it takes those and cotangents."""
    b = Builder()
    params = [b.param(v.type) for v in jvp.params[:known]]
    env = dict(zip(jvp.params, params, strict=False))
    linear, later = set(jvp.params[known:]), []
    for op in jvp.body.operations:
        if linear.isdisjoint(op.operands):
            env.update(
                zip(op.results, b.emit(op.opdef, [env[v] for v in op.operands], op.attributes), strict=True)
            )
        else:
            linear.update(op.results)
            later.append(op)
    cotangents: dict[Value, Value] = {}

    def give(value: Value, cotangent: Value | None) -> None:
        if cotangent is not None and value in linear:
            assert cotangent.type == value.type
            had = cotangents.get(value)
            cotangents[value] = cotangent if had is None else b.add(had, cotangent)

    for value in jvp.results:
        params.append(b.param(value.type))
        give(value, params[-1])
    for op in reversed(later):
        given = [cotangents.get(v) for v in op.results]
        if any(ct is not None for ct in given):
            found = op.opdef.transpose_of(b, op, given, [env.get(v) for v in op.operands])
            for value, cotangent in zip(op.operands, found, strict=True):
                give(value, cotangent)
    results = [cotangents.get(v) or b.zeros(v.type) for v in jvp.params[known:]]
    return b.function("vjp", params, results)


def run(function: Function, args: Sequence[Any]) -> list[np.ndarray]:
    """The results as NumPy arrays."""
    return [np.asarray(x) for x in evaluate(function, [np.asarray(a) for a in args])[0]]


def pairing(cotangents: Sequence[Any], tangents: Sequence[Any]) -> float:
    """⟨ct, v⟩ as JAX pairs complex numbers: the real part of Σ ct · v."""
    return float(sum(np.real(np.sum(ct * v)) for ct, v in zip(cotangents, tangents, strict=True)))


def differentiable(row: Row, sample: Sample) -> bool:
    """Whether there is a derivative to test: some operand and some result are real or complex."""
    results = row.infer(sample.types, sample.attributes)
    return any(t.differentiable for t in sample.types) and any(t.differentiable for t in results)


def check_derivative(row: Row, sample: Sample) -> None:
    """The jvp against a central difference, its transpose by the inner product, both in double precision."""
    sample = in_double(sample)
    function = program(row, [sample])
    if isinstance(row.derivative, Undefined):
        _check_refusal(function)
        return
    jvp = jvp_function(function)
    verify(Module.of([jvp]))
    args = random_arrays(sample.types, sample)
    active = [i for i, t in enumerate(sample.types) if t.differentiable]
    tangents = random_arrays([sample.types[i] for i in active], ANY, 1)
    found = run(jvp, [*args, *tangents])
    if row.name != "stop_gradient":
        _check_difference(function, args, dict(zip(active, tangents, strict=True)), found)
    for one in active if len(active) > 1 else ():
        alone = [t if i == one else np.zeros_like(t) for i, t in zip(active, tangents, strict=True)]
        _check_only(function, jvp, args, active, one, alone)
    vjp = vjp_function(jvp, len(args))
    verify(Module.of([vjp]))
    cotangents = random_arrays([v.type for v in jvp.results], ANY, 2)
    back = run(vjp, [*args, *cotangents])
    np.testing.assert_allclose(pairing(cotangents, found), pairing(back, tangents), rtol=1e-10, atol=1e-10)


def _check_refusal(function: Function) -> None:
    try:
        jvp_function(function)
    except DerivativeError as e:
        assert "has no derivative" in str(e)
    else:
        raise AssertionError("a derivative that is undefined was given")


def _check_difference(
    function: Function, args: list[Any], tangents: dict[int, Any], found: list[Any]
) -> None:
    def moved(by: float) -> list[np.ndarray]:
        at = [x + by * tangents[i] if i in tangents else x for i, x in enumerate(args)]
        results = zip(run(function, at), function.results, strict=True)
        return [y for y, v in results if v.type.differentiable]

    for slope, high, low in zip(found, moved(STEP), moved(-STEP), strict=True):
        same(slope, (high - low) / (2 * STEP), 2e-8 / STEP**0.3)


def _check_only(
    function: Function, jvp: Function, args: list[Any], active: list[int], one: int, alone: list[Any]
) -> None:
    """A jvp of which one tangent alone is given agrees with zeros for the others."""
    b = Builder()
    operands = [b.param(v.type) for v in function.params]
    tangent = b.param(function.params[one].type)
    (op,) = function.body.operations
    results = b.emit(op.opdef, operands, op.attributes)
    given = [tangent if i == one else None for i in range(len(operands))]
    made = op.opdef.jvp_of(b, op, operands, given, results)
    wanted = [
        t if t is not None else b.zeros(y.type)
        for t, y in zip(made, results, strict=True)
        if y.type.differentiable
    ]
    partial = b.function("partial", [*operands, tangent], wanted)
    expected = run(jvp, [*args, *alone])
    for x, y in zip(run(partial, [*args, alone[active.index(one)]]), expected, strict=True):
        same(x, y)


# ------------------------------------------------------------------------------------------ the other rules
def check_types(row: Row, sample: Sample) -> None:
    """What `evaluate` gives has the types that the type rule says, and no warning is given."""
    function = program(row, [sample])
    verify(Module.of([function]))
    found = row.evaluate_op(None, function.body.operations[0], random_arrays(sample.types, sample))
    assert [Type.of(np.asarray(x)) for x in found] == [v.type for v in function.results]


def check_text(row: Row, sample: Sample) -> None:
    """Printing and parsing give the same text, and a program that means the same."""
    function = program(row, [sample])
    text = to_text(Module.of([function]))
    back = parse(text)
    assert to_text(back) == text
    args = random_arrays(sample.types, sample)
    for x, y in zip(run(back.functions["f"], args), run(function, args), strict=True):
        same(x, y, 0.0)


def check_may_be_nan(row: Row, sample: Sample) -> None:
    """Where the largest or smallest numbers or zeros give a result that is not finite, the row says so."""
    (op,) = program(row, [sample]).body.operations
    for seed in range(0 if row.may_be_nan else 4):
        rng = np.random.default_rng(seed)
        args = [_extremes(t, rng) if t.differentiable else random_array(t, rng, sample) for t in sample.types]
        for y in op.opdef.evaluate_op(None, op, args):
            assert y.dtype.kind in "biu" or np.isfinite(y.astype(np.complex128)).all(), args


def _extremes(type: Type, rng: np.random.Generator) -> np.ndarray:
    if type.dtype.kind == "c":
        part = type.with_dtype(dtype("f32" if type.dtype.name == "c64" else "f64"))
        return (_extremes(part, rng) + 1j * _extremes(part, rng)).astype(type.dtype.numpy)
    limits = ml_dtypes.finfo(type.dtype.numpy)
    return rng.choice(
        np.array([0, 1, limits.tiny, -1, limits.max, limits.min]).astype(type.dtype.numpy), type.shape
    )


def check_batching(row: Row, sample: Sample) -> None:
    """Every non-empty choice of batched operands against a loop."""
    (op,) = program(row, [sample]).body.operations
    for flags in itertools.product((False, True), repeat=len(sample.types)):
        if any(flags):
            _check_batched(op, sample, flags)


def _check_batched(op: Any, sample: Sample, flags: tuple[bool, ...]) -> None:
    b = Builder()
    types = [t.batched(BATCH) if flag else t for t, flag in zip(sample.types, flags, strict=True)]
    operands = [b.param(t) for t in types]
    function = b.function("batched", operands, op.opdef.batch_of(b, op, operands, flags))
    verify(Module.of([function]))
    args = random_arrays(types, sample)
    found = run(function, args)
    assert len(found) == len(op.results)
    for i in range(BATCH):
        one = [a[i] if flag else a for a, flag in zip(args, flags, strict=True)]
        for whole, expected in zip(
            found, op.opdef.evaluate_op(None, op, list(map(np.asarray, one))), strict=True
        ):
            same(whole[i], expected, what=f"batched {flags}")


def check_lowering(row: Row) -> None:
    """The compiled program against `evaluate`, on all samples at once."""
    function = program(row, row.samples)
    args = [x for sample in row.samples for x in random_arrays(sample.types, sample)]
    with jax.enable_x64(True):
        found = compile_function(function)(*args)
    for value, x, y in zip(function.results, found, run(function, args), strict=True):
        same(x, y, what=str(value.type))


CHECKS: dict[str, Callable[[Row, Sample], None]] = {
    "types": check_types,
    "text": check_text,
    "batching": check_batching,
    "may_be_nan": check_may_be_nan,
}
