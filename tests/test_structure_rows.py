"""Shapes, indexing, reductions and products against jax: import, value, jvp and vjp of single primitives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategrad.ir import Builder, IRTypeError, Type, Value, dtype
from tests.lax_programs import LeftToJax, Program, compare

Case = tuple[str, Callable[..., Any], tuple[Any, ...]]


# ------------------------------------------------------------------------------------------------ arguments
def reals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + 100 * len(shape)).uniform(-1, 1, shape)


def ints(*values: Any, to: str = "int32") -> np.ndarray:
    return np.array(values, to)


def scalar(value: int, to: str = "int32") -> np.ndarray:
    return np.array(value, to)


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
    with pytest.raises(LeftToJax):
        Program(function, args)


# ------------------------------------------------------------------------------------------------ refused
PRECISE = ("default", "default")
REFUSED = [
    ("reshape", ["f32[2,3]"], {"shape": (4,)}, "6 elements do not fill the shape"),
    ("reshape", ["f32[2,3]"], {"shape": (-2, -3)}, "do not fill"),
    ("transpose", ["f32[2,3]"], {"permutation": (0,)}, "does not name all 2 axes"),
    ("transpose", ["f32[2,3]"], {"permutation": (0, 0)}, "must be different numbers from 0 to 1"),
    ("broadcast", ["f32[2]"], {"shape": (3,), "dimensions": (0,)}, "cannot become axes"),
    ("broadcast", ["f32[2,3]"], {"shape": (3, 2), "dimensions": (1, 0)}, "increasing"),
    ("slice", ["f32[4]"], {"start": (3,), "limit": (2,), "strides": (1,)}, "the slice 3:2:1 does not fit"),
    ("slice", ["f32[4]"], {"start": (0, 0), "limit": (2,), "strides": (1,)}, "one entry for each of 1 axes"),
    ("pad", ["f32[1]", "f32[]"], {"low": (-2,), "high": (0,), "interior": (0,)}, "remove too much"),
    ("pad", ["f32[1]", "i32[]"], {"low": (0,), "high": (0,), "interior": (0,)}, "padding must be f32"),
    ("concatenate", ["f32[1,2]", "f32[1,3]"], {"dimension": 0}, "do not fit together"),
    ("dynamic_slice", ["f32[3]", "f32[]"], {"sizes": (1,)}, "integer scalars"),
    ("dynamic_slice", ["f32[3]", "i32[]"], {"sizes": (4,)}, "does not fit into"),
    ("reduce_sum", ["f32[2,3]"], {"axes": (1, 0)}, "increasing order"),
    ("reduce_max", ["c64[2]"], {"axes": (0,)}, "has no order"),
    ("reduce_and", ["f32[2]"], {"axes": (0,)}, "booleans or integers"),
    ("argmax", ["f32[0]"], {"axis": 0, "to": dtype("i32")}, "no place of an extreme element"),
    ("sort", ["f32[2]", "f32[3]"], {"dimension": 0, "num_keys": 1}, "the same shape"),
    (
        "dot",
        ["f32[2]", "f32[3]"],
        {"contract": ((0,), (0,)), "batch": ((), ()), "precision": PRECISE, "to": dtype("f32")},
        "axes of different lengths",
    ),
    (
        "dot",
        ["f32[2]", "f32[2]"],
        {"contract": ((0,), (0,)), "batch": ((), ()), "precision": ("best", "best"), "to": dtype("f32")},
        "must be two of default, high, highest",
    ),
]


@pytest.mark.parametrize(("name", "types", "attributes", "message"), REFUSED)
def test_rows_say_what_does_not_fit(name: str, types: list[str], attributes: Any, message: str) -> None:
    operands = [Value(Type.parse(t)) for t in types]
    with pytest.raises(IRTypeError, match=message):
        Builder().call_row(name, *operands, **attributes)
