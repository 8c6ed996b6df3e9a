"""The importer's elementwise entries against JAX: values, jvp and vjp, with ties, corners and short types."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategrad import lax_elementwise
from stategrad.importing import import_jaxpr
from stategrad.ir import Builder, IRTypeError, Names, Type, dtype_of
from tests.lax_oracle import Case, case, check, compare, directions, imported, oracle
from tests.row_checks import jvp_function, run, same, vjp_function

INF, NAN = np.inf, np.nan
REALS = (-3.0, -2.5, -1.0, -0.5, -0.0, 0.0, 0.3, 0.5, 1.0, 1.5, 2.5, 7.0)
WILD = (*REALS, INF, -INF, NAN, 1e-30, 80.0, -100.0)
POSITIVE = (1e-4, 0.1, 0.5, 1.0, 2.0, 10.0, 1e5)
INSIDE = (-0.99999, -0.9, -0.3, 1e-4, 0.3, 0.999)
INTEGERS = (-128, -100, -7, -1, 0, 1, 2, 3, 5, 8, 9, 127)
BITS = (0, 1, 2, 7, 8, 31, 32, 100, 127)
COMPLEX = (0.3 + 0.2j, -1.5 + 2j, 2j, 1.0, -0.7 - 0.1j)
FLOATS = ("float64", "float32", "bfloat16", "float16")


@pytest.fixture(autouse=True)
def _double() -> Any:
    with jax.enable_x64(True):
        yield


def array(points: Any, of: str) -> np.ndarray:
    """The points in a type; what does not fit becomes what the type makes of it."""
    with np.errstate(all="ignore"):
        return np.array(points).astype(of)


def pairs(points: tuple[Any, ...], of: str) -> tuple[Any, Any]:
    """Each point with each: ties, and every combination of signs and corners."""
    first, second = np.meshgrid(array(points, of), array(points, of), indexing="ij")
    return first, second


# -------------------------------------------------------------------------------------- functions and points
UNARY: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "neg": (lax.neg, WILD),
    "sign": (lax.sign, WILD),
    "floor": (lax.floor, WILD),
    "ceil": (lax.ceil, WILD),
    "abs": (lax.abs, WILD),
    "is_finite": (lax.is_finite, WILD),
    "exp": (lax.exp, WILD),
    "exp2": (lax.exp2, REALS),
    "expm1": (lax.expm1, REALS),
    "log": (lax.log, (*POSITIVE, 0.0, INF, NAN, -1.0)),
    "log1p": (lax.log1p, (*POSITIVE, 0.0, INF, NAN)),
    "logistic": (lax.logistic, WILD),
    "tanh": (lax.tanh, (*REALS, INF, -INF, NAN)),
    "sin": (lax.sin, REALS),
    "cos": (lax.cos, REALS),
    "tan": (lax.tan, REALS),
    "asin": (lax.asin, INSIDE),
    "acos": (lax.acos, INSIDE),
    "atan": (lax.atan, REALS),
    "sinh": (lax.sinh, REALS),
    "cosh": (lax.cosh, REALS),
    "asinh": (lax.asinh, REALS),
    "acosh": (lax.acosh, (1.5, 2.0, 10.0)),
    "atanh": (lax.atanh, INSIDE),
    "square": (lax.square, WILD),
    "sqrt": (lax.sqrt, (*POSITIVE, 0.0, INF, NAN, -1.0)),
    "rsqrt": (lax.rsqrt, (*POSITIVE, 0.0, NAN, -1.0)),
    "cbrt": (lax.cbrt, (*POSITIVE, -1.0, -8.0)),
    "erf": (lax.erf, (*REALS, INF, -INF, NAN)),
    "erfc": (lax.erfc, REALS),
    "erf_inv": (lax.erf_inv, (-0.999, -0.9, -0.3, 1e-4, 0.0, 0.3, 0.99)),
    "round even": (lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN), WILD),
    "round away": (lambda x: lax.round(x, lax.RoundingMethod.AWAY_FROM_ZERO), WILD),
    "stop_gradient": (lax.stop_gradient, WILD),
    "copy": (jnp.copy, WILD),
    **{
        f"integer_pow {y}": (lambda x, y=y: lax.integer_pow(x, y), (*REALS, NAN))
        for y in (0, 1, 2, 3, 5, -1, -2, -3)
    },
    "pow 2": (lambda x: lax.pow(x, 2), REALS),
}


COMPLEX_UNARY = (
    "neg",
    "exp",
    "log",
    "square",
    "sqrt",
    "rsqrt",
    "abs",
    "copy",
    "stop_gradient",
    "integer_pow 3",
    "integer_pow -2",
)


INTEGER_UNARY = {
    "neg": lax.neg,
    "sign": lax.sign,
    "square": lax.square,
    "not": lax.bitwise_not,
    "population_count": lax.population_count,
    "clz": lax.clz,
    "integer_pow": lambda x: lax.integer_pow(x, 3),
}
WIDTHS = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64")


BINARY = {
    "add": (lax.add, WILD),
    "sub": (lax.sub, WILD),
    "mul": (lax.mul, WILD),
    "div": (lax.div, (*REALS, INF, NAN)),
    "rem": (lax.rem, (-7.5, -3.0, -0.5, 0.7, 1.0, 2.5, 9.0)),
    "max": (lax.max, WILD),
    "min": (lax.min, WILD),
    "atan2": (lax.atan2, REALS),
    "nextafter": (lax.nextafter, REALS),
    "pow": (lax.pow, (0.0, 0.3, 1.0, 2.0, 3.5, -1.0)),
    "complex": (lax.complex, REALS),
    "eq": (lax.eq, WILD),
    "ne": (lax.ne, WILD),
    "lt": (lax.lt, WILD),
    "le": (lax.le, WILD),
    "gt": (lax.gt, WILD),
    "ge": (lax.ge, WILD),
}


INTEGER_BINARY = {
    name: getattr(lax, name)
    for name in ("add", "sub", "mul", "div", "rem", "max", "min", "eq", "ne", "lt", "le", "gt", "ge")
} | {"and": lax.bitwise_and, "or": lax.bitwise_or, "xor": lax.bitwise_xor}


SHIFTS = (lax.shift_left, lax.shift_right_logical, lax.shift_right_arithmetic)
TRUTH = ("max", "min", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor")
CONVERSIONS = (
    "bool",
    "int8",
    "uint8",
    "int32",
    "uint32",
    "int64",
    "uint64",
    *FLOATS,
    "complex64",
    "complex128",
)
RANGES = (*REALS, 300.7, -300.7, 3e9, -3e9, 1e10)


def _real(of: str) -> Mapping[str, Case]:
    """All functions of real numbers; float16 has no room for some points."""

    def fits(x: float) -> bool:
        return of != "float16" or not (6e4 < abs(x) < INF or 0 < abs(x) < 1e-3)

    one = {n: case(f, array(list(filter(fits, points)), of)) for n, (f, points) in UNARY.items()}
    two = {n: case(f, *pairs(tuple(filter(fits, points)), of)) for n, (f, points) in BINARY.items()}
    if of in ("bfloat16", "float16"):
        del two["complex"]
    points = array([0, 1, 2, 3, 5], of)
    low, x = np.meshgrid(points, points)
    clamps = {
        "clamp": case(lax.clamp, low, x, low + array(2, of)),
        "clamp by numbers": case(lambda x: lax.clamp(array(1, of), x, array(3, of)), points),
    }
    return one | two | clamps


def _complex(of: str) -> Mapping[str, Case]:
    functions = {n: UNARY[n][0] for n in COMPLEX_UNARY} | {
        "real": lax.real,
        "imag": lax.imag,
        "conj": lax.conj,
    }
    one = {n: case(f, array(COMPLEX, of)) for n, f in functions.items()}
    return one | {
        n: case(BINARY[n][0], *pairs(COMPLEX, of)) for n in ("add", "sub", "mul", "div", "eq", "ne")
    }


def _integers(of: str) -> Mapping[str, Case]:
    one = {n: case(f, array(INTEGERS, of)) for n, f in INTEGER_UNARY.items()}
    if of.startswith("i"):
        one["abs"] = case(lax.abs, array(INTEGERS, of))
    two = {n: case(f, *pairs(INTEGERS, of)) for n, f in INTEGER_BINARY.items()}
    x, y = np.meshgrid(array(INTEGERS, of), array((*BITS, -1), of))
    return {f"one {n}": c for n, c in one.items()} | two | {f.__name__: case(f, x, y) for f in SHIFTS}


def _truth(of: str) -> Mapping[str, Case]:
    return {n: case(INTEGER_BINARY[n], *pairs((False, True), of)) for n in TRUTH}


def _conversions(of: str) -> Mapping[str, Case]:
    whole = of in (*WIDTHS, "bool")
    found = {}
    for to in CONVERSIONS:
        points = INTEGERS if whole else RANGES if to == "bool" else (*RANGES, INF, NAN)
        found[to] = case(lambda x, to=to: lax.convert_element_type(x, to), array(points, of))
    return found


GROUPS = {
    **{f"real {of}": (_real, of) for of in FLOATS},
    **{f"complex {of}": (_complex, of) for of in ("complex64", "complex128")},
    **{f"integers {of}": (_integers, of) for of in WIDTHS},
    "truth values": (_truth, "bool"),
    **{f"convert {of}": (_conversions, of) for of in CONVERSIONS},
}


@cache
def group(name: str) -> tuple[Mapping[str, Case], Mapping[str, Any]]:
    """The cases of a group, and what JAX says about them."""
    make, of = GROUPS[name]
    cases = make(of)
    return cases, oracle(cases)


@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("name", GROUPS)
def test_group(name: str) -> None:
    cases, expected = group(name)
    for what in cases:
        compare(cases[what], expected[what], what)


# ---------------------------------------------------------------------------------------------- more operands
def test_power_by_integers() -> None:
    x, y = np.meshgrid(np.array([0.0, -2.0, 0.5, 3.0]), np.array([-2, -1, 0, 1, 2, 3], np.int32))
    check(lax.pow, x, y)


def test_select() -> None:
    which = np.array([True, False, True])
    x, y = np.array([1.0, NAN, 3.0]), np.array([INF, 5.0, 6.0])
    check(lambda x, y: lax.select(which, x, y), x, y)
    check(lambda x, y: lax.select_n(jnp.bool_(True), x, y), x, y)
    check(lambda x: jnp.where(x > 2, x, 0.0), x)
    check(lambda x, y: jnp.where(which, x, y), np.arange(3), np.arange(3) + 5)


def test_clamp_between_bounds_that_cross_has_the_derivative_of_the_upper() -> None:
    args = [np.array([v]) for v in (2.0, 0.0, 1.0)]
    tangents = [np.array([v]) for v in (10.0, 20.0, 30.0)]
    assert run(jvp_function(imported(lax.clamp, *args)), [*args, *tangents]) == [30.0]


def test_double_rounding_is_that_of_xla() -> None:
    x = np.array([1 + 2**-11 + 2**-30, 1 + 3 * 2**-11 - 2**-30])
    twice, once = x.astype(np.float32).astype(np.float16), x.astype(np.float16)
    assert (twice != once).all()
    (ours,) = run(imported(lambda x: lax.convert_element_type(x, "float16"), x), [x])
    np.testing.assert_array_equal(ours, twice)
    by_xla = jax.jit(lambda x: lax.convert_element_type(x, "float16"))(x)
    assert (by_xla == twice).all() or (by_xla == once).all()  # once on machines with AVX512-FP16


def test_broadcasts_scalars_and_axes_of_one() -> None:
    x = np.arange(6.0).reshape(2, 3)
    check(lambda x: 2.0 * x + lax.max(x, 1.0) - lax.sin(3.0), x)
    check(lambda x, y: lax.add(x, y), x, np.ones((1, 3)))


@pytest.mark.parametrize(
    "function",
    [
        lambda t: lax.div(t, 3.0),
        lambda t: lax.neg(lax.sub(lax.mul(t, 2.0), lax.add(t, t))),
        lambda t: lax.optimization_barrier((2 * t, jnp.copy(t))),
        lambda t: lax.select(
            np.array([True, False]), t, lax.convert_element_type(t, np.float32).astype(float)
        ),
        lambda t: lax.imag(lax.conj(lax.mul(lax.complex(t, 2 * t), 1 + 3j))),
        lambda t: lax.real(lax.div(lax.convert_element_type(t, complex), 2j)),
    ],
)
def test_what_jax_calls_linear_is_transposed(function: Callable[..., Any]) -> None:
    t = jnp.array([0.5, -2.0])
    outputs, pullback = jax.vjp(function, t)
    cotangents = directions(jax.tree.leaves(outputs), 1)
    expected = pullback(jax.tree.unflatten(jax.tree.structure(outputs), cotangents))
    compared = zip(run(vjp_function(imported(function, t), 0), cotangents), expected, strict=True)
    for x, y in compared:
        same(x, y, 1e-6)


def test_iota() -> None:
    check(lambda x: x + lax.broadcasted_iota("float64", (2, 3), 1), np.ones((2, 3)))


def test_optimization_barrier_keeps_literals_scalar() -> None:
    check(lambda x: lax.optimization_barrier((x, 1.0, jnp.int32(3))), np.ones(3))


def test_every_entry_is_compared_with_jax() -> None:
    seen = {*UNARY, *BINARY, *INTEGER_UNARY, *INTEGER_BINARY, *(f.__name__ for f in SHIFTS)}
    seen |= {
        "real",
        "imag",
        "conj",
        "clamp",
        "select_n",
        "iota",
        "round",
        "convert_element_type",
        "integer_pow",
    }
    # The second is add by another name.
    assert lax_elementwise.TABLE.keys() - seen == {"optimization_barrier", "add_any"}


# ------------------------------------------------------------------------------------------ what rows refuse
@pytest.mark.parametrize(
    ("name", "types", "message"),
    [
        ("add", ("f32[2]", "f32[3]"), r"one type, not f32\[2\] and f32\[3\]: broadcast or convert first"),
        ("add", ("f32[2]", "f64[2]"), "one type"),
        ("add", ("bool[]", "bool[]"), r"add\(bool\[\], bool\[\]\): takes signed integers or .* not bool"),
        ("add", ("f32[]",), "takes 2 operands, not 1"),
        ("logistic", ("i32[]",), r"takes real numbers, not i32\[\]"),
        ("sin", ("c64[]",), "takes real numbers"),
        ("select", ("i32[]", "f32[]", "f32[]"), r"the predicate must be bool\[\]"),
        ("shift_left", ("i4[]", "i4[]"), "whole bytes"),
        ("complex", ("bf16[]", "bf16[]"), "convert to f32 first"),
    ],
)
def test_refusals(name: str, types: tuple[str, ...], message: str) -> None:
    b = Builder()
    with pytest.raises(IRTypeError, match=message):
        b.call_row(name, *(b.param(Type.parse(t)) for t in types))


def test_constants_are_not_copied_when_built_and_must_fit() -> None:
    b = Builder()
    value = jnp.ones(3)
    made = b.constant(value, Type(dtype_of(value.dtype), (3,)))
    assert b.operations[-1].attributes["value"] is value
    assert made.type.shape == (3,)
    with pytest.raises(IRTypeError, match=r"a value of shape \[3\] is no"):
        b.constant(value, Type.parse("f64[4]"))
    with pytest.raises(IRTypeError, match="convert it first"):
        b.constant(np.ones(4, np.int32), Type.parse("f64[4]"))
    with pytest.raises(IRTypeError, match=r"put numpy.array"):
        b.constant([1, 2], Type.parse("f64[2]"))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: lax.exp(x, accuracy=lax.AccuracyMode.HIGHEST),
        lambda x: lax.sin(lax.complex(x, x)),
        lambda x: lax.select_n(jnp.int32(2), x, x, x),
    ],
)
def test_the_rest_becomes_foreign(function: Callable[..., Any]) -> None:
    made = import_jaxpr(jax.make_jaxpr(function)(1.0), "f", None, Names()).function
    assert [op.name for op in made.body.operations if "." in op.name]
