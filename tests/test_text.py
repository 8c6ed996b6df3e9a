"""The textual form: what is printed parses back exactly, and prints the same again."""

import enum
import functools
import gc
import subprocess
import sys
import weakref

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from stategrad.ir import (
    Builder,
    Cell,
    Derived,
    LazySource,
    Module,
    Opaque,
    Source,
    Type,
    dtype,
    parse,
    to_text,
    verify,
)
from stategrad.ir.dtypes import _BY_NAME
from stategrad.ir.opdef import ROWS

DTYPES = [d for d in _BY_NAME.values() if d.numpy is not None]


def round_trip(program: Module) -> Module:
    """The program after a trip through its text, which has to print the same."""
    text = to_text(program)
    again = parse(text)
    verify(again)
    assert to_text(again) == text
    return again


def facts(**attributes: object) -> Module:
    """A module whose only function carries the attributes."""
    return Module.of([Builder().function("f", (), (), **attributes)])


def same(given: object) -> object:
    """An attribute after a trip through text."""
    return round_trip(facts(a=given)).functions["f"].attributes["a"]


def constant(value: object, type: str) -> object:
    """A constant's value after a trip through text."""
    b = Builder()
    result = b.constant(value, Type.parse(type))
    again = round_trip(Module.of([b.function("f", (), (result,))]))
    return again.functions["f"].body.operations[0].attributes["value"]


# ------------------------------------------------------------------ attributes
PLAIN = [
    *[0, -7, 2**63, -(2**5000), True, False, None, (), ((1,), ()), (True, (None, "x", 1.5))],
    *["", "plain", 'a "quoted"\\\n\t\r\x00', "é\u2028\ud83d\ude00😀"],
    *[0.1, -0.0, 1e300, 5e-324, float("inf"), -float("inf"), 1 + 2j, complex(-0.0, float("inf"))],
    *[
        Type.parse("bf16[2,0]"),
        dtype("key<fry>"),
        dtype("f8_e4m3fn"),
        np.dtype("f4"),
        np.dtype(ml_dtypes.bfloat16),
    ],
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: repr(v)[:20])
def test_plain_attributes_are_the_same_after_a_trip(value: object) -> None:
    found = same(value)
    assert type(found) is type(value)
    assert repr(found) == repr(value)


def test_lists_become_tuples() -> None:
    assert same([1, [2]]) == (1, (2,))


@pytest.mark.parametrize("of", DTYPES, ids=str)
def test_every_bit_pattern_of_a_number_survives(of) -> None:
    bits = np.random.default_rng(0).integers(0, 256, 500 * of.numpy.itemsize, np.uint8)
    if of.kind == "b":
        bits %= 2
    values = np.frombuffer(bits.tobytes(), of.numpy)
    if of.kind in "iu":
        values = values.astype(np.int64 if of.kind == "i" else np.uint64).astype(of.numpy)
    for value in values[:100]:
        assert np.asarray(constant(value, f"{of}[]")).tobytes() == value.tobytes()
    for shape in ((3, 5), (500,), (0,), (2, 0)):
        array = np.resize(values, shape)
        assert constant(array, str(Type(of, shape))).tobytes() == array.tobytes()
    found = same(values[:4])
    assert found.dtype == of.numpy and found.tobytes() == values[:4].tobytes()


def test_a_float_prints_with_the_fewest_digits_of_its_own_type() -> None:
    for kind in (np.float16, np.float32, np.float64, ml_dtypes.bfloat16):
        assert "[] 0.1}" in to_text(facts(a=kind(0.1)))


def test_array_likes_are_arrays() -> None:
    np.testing.assert_array_equal(
        constant(jnp.arange(6.0).reshape(2, 3), "f32[2,3]"), np.arange(6).reshape(2, 3)
    )
    assert constant(jnp.float32(2.5), "f32[7]") == 2.5
    assert constant(np.array(3), "f32[]").dtype == np.float32
    assert constant(1, "c64[]") == 1


def test_equal_constants_have_one_text() -> None:
    texts = {to_text(facts_of_constant(v)) for v in (0.1, np.float32(0.1), np.array(0.1), jnp.float32(0.1))}
    assert len(texts) == 1


def facts_of_constant(value: object) -> Module:
    b = Builder()
    return Module.of([b.function("f", (), (b.constant(value, Type.parse("f32[]")),))])


def test_attributes_print_in_one_order() -> None:
    assert to_text(facts(a=1, b=2)) == to_text(facts(b=2, a=1))


def test_what_goes_without_saying_is_not_written() -> None:
    text = (
        "func @f(%x: f32[2,3], %y: f32[3,4]) -> bf16[8] {\n"
        "  %product: f32[2,4] = dot %x, %y {contract = [[1], [0]]}\n"
        "  %sums: f32[2,4] = cumsum %product {axis = 1}\n"
        "  %backwards: f32[2,4] = cumsum %sums {axis = 1, reverse = true}\n"
        "  %line: f32[8] = reshape %backwards\n"
        "  %half: bf16[8] = convert %line\n"
        "  return %half\n"
        "}\n"
    )
    program = parse(text)
    assert to_text(program) == text
    product, sums, _, line, half = (op.attributes for op in program.functions["f"].body.operations)
    default = ("default", "default")
    assert product == {"contract": ((1,), (0,)), "batch": ((), ()), "precision": default, "to": dtype("f32")}
    assert sums == {"axis": 1, "reverse": False}
    assert (line, half) == ({"shape": (8,)}, {"to": dtype("bf16")})
    longer = text.replace("axis = 1}", "axis = 1, reverse = false}").replace(
        "convert %line", "convert %line {to = bf16}"
    )
    assert to_text(parse(longer)) == text


def test_huge_constants_are_not_spelled_out() -> None:
    assert len(to_text(facts(a=np.zeros(1000, np.float32)))) < 6000


# ------------------------------------------------------------------ objects without a text
class Colour(enum.IntEnum):
    RED = 1


class Shape(enum.IntEnum):
    ROUND = 1


def test_objects_without_text_are_found_again() -> None:
    for value in (
        np.sin,
        Colour.RED,
        functools.partial(max, 1),
        object(),
        {"a": 1},
        jax.random.key(0),
        print,
    ):
        assert same((1, value))[1] is value
    assert same((Colour.RED, Shape.ROUND)) == (Colour.RED, Shape.ROUND)
    assert [type(v) for v in same((Colour.RED, Shape.ROUND))] == [Colour, Shape]


def test_equal_objects_have_one_text() -> None:
    def numbers() -> object:
        return jax.lax.GatherDimensionNumbers((0,), (1,), (2,))

    assert to_text(facts(a=numbers())) == to_text(facts(a=numbers()))


def test_objects_are_not_kept_alive() -> None:
    def function() -> None: ...

    text, alive = to_text(facts(a=function)), weakref.ref(function)
    del function
    gc.collect()
    assert alive() is None
    left = parse(text).functions["f"].attributes["a"]
    assert isinstance(left, Opaque)
    assert same(left) == left


def test_another_process_reads_and_prints_what_it_cannot_resolve() -> None:
    text = to_text(facts(a=object()))
    script = "import sys; from stategrad.ir import *; sys.stdout.write(to_text(parse(sys.stdin.read())))"
    found = subprocess.run(
        [sys.executable, "-c", script], input=text, capture_output=True, text=True, check=True
    )
    assert found.stdout == text


def test_an_operation_with_an_unknown_object_keeps_its_declared_type() -> None:
    line = '%y: f32[] = reduce_sum %x {axes = opaque"axes#0@0"}'
    text = f"func @f(%x: f32[2]) -> f32[] {{\n  {line}\n  return %y\n}}\n"
    assert to_text(parse(text)) == text


# ------------------------------------------------------------------ names
def test_names_of_values_become_unique() -> None:
    b = Builder()
    x = b.param(Type.parse("f32[]"), "x")
    y = b.emit(ROWS["sin"], [x], names=["x"])[0]
    z = b.emit(ROWS["sin"], [y], names=["x1"])[0]
    u = b.emit(ROWS["sin"], [z], names=["a b%"])[0]
    text = to_text(Module.of([b.function("f", (x,), (b.sin(u),))]))
    assert [line.split(":")[0].strip() for line in text.splitlines()[1:-2]] == ["%x1", "%x11", "%a_b_", "%0"]
    round_trip(parse(text))


def test_local_cells_and_what_they_shadow_get_unique_names() -> None:
    outer = Cell("acc", Type.parse("f32[]"))
    elsewhere = Cell("h", Type.parse("f32[]"))
    function = Builder().function("f", (), ())
    for _ in range(3):
        b = Builder()
        b.locals += [
            Cell("acc", outer.type),
            Cell("h.t", outer.type, "tangent", elsewhere),
            Cell("h", outer.type),
        ]
        b.write(b.read(cell=outer), cell=b.locals[0])
        b.write(b.read(cell=b.locals[1]), cell=b.locals[2])
        inner = b.region((), ())
        b = Builder()
        b.emit(ROWS["remat"], (), {}, (inner,))
        b.emit(ROWS["call"], (), {"callee": function})
        function = b.function(f"{function.name}'", (), ())
    text = to_text(round_trip(Module.of([function])))
    assert "local $acc1: f32[], $h: f32[], $h.t: f32[] tangent of $h1 {" in text
    assert "call @\"f''\"" in text


def test_a_local_shadow_may_stand_before_what_it_shadows() -> None:
    b, h = Builder(), Cell("h", Type.parse("f32[]"))
    b.locals += [Cell("h.t.ct", h.type, "cotangent", Cell("h.t", h.type, "tangent", h)), h]
    text = to_text(round_trip(Module.of([b.function("f", (), ())])))
    assert "local $h: f32[], $h.t.ct: f32[] cotangent of $h.t {" in text


def test_a_shadow_brings_the_cell_that_it_shadows_into_the_text() -> None:
    w = Cell("w", Type.parse("f32[]"))
    shadow = Cell("w.t", w.type, "tangent", w)
    b = Builder()
    module = Module.of([b.function("f", (), (b.read(cell=shadow),))])
    assert to_text(round_trip(module)).startswith("state $w: f32[]\nstate $w.t: f32[] tangent of $w\n")


def test_a_function_prints_alone() -> None:
    w = Cell("w", Type.parse("f32[]"))
    b = Builder()
    assert to_text(b.function("f", (), (b.read(cell=w),))) == (
        "func @f() -> f32[] reads $w {\n  %0: f32[] = read $w\n  return %0\n}\n"
    )


# ------------------------------------------------------------------ locations
def located(location) -> Module:
    b = Builder(location)
    x = b.param(Type.parse("f32[]"), "x")
    return Module.of([b.function("f", (x,), (b.sin(x),))])


def test_locations_are_found_out_when_printed_and_may_be_left_out() -> None:
    lazy = Derived("transpose", LazySource(lambda: Source('a "b".py', 3, 4)))
    assert 'loc(transpose("a \\"b\\".py":3:4))' in to_text(round_trip(located(lazy)))
    assert to_text(located(lazy), locations=False) == to_text(located(Source("else.py", 1)), locations=False)


def test_a_location_may_go_through_many_passes() -> None:
    location = Source("a.py", 1)
    for _ in range(150):
        location = Derived("linearize", location)
    round_trip(located(location))


# ------------------------------------------------------------------ rows
@pytest.mark.parametrize("name", ROWS)
def test_every_row_survives_a_trip(name: str) -> None:
    for sample in getattr(ROWS[name], "samples", ()):
        b = Builder()
        params = [b.param(t) for t in sample.types]
        module = Module.of([b.function("f", params, b.emit(ROWS[name], params, sample.attributes))])
        verify(module)
        before, after = (m.functions["f"].body.operations[0] for m in (module, round_trip(module)))
        assert after.opdef is before.opdef
        assert after.attributes.keys() == before.attributes.keys()
