"""The verifier: each rule of the IR, broken by hand, is found and pointed at."""

import dataclasses

import numpy as np
import pytest

from stategrad.ir import (
    Builder,
    Cell,
    Function,
    IRVerifyError,
    Module,
    Operation,
    Region,
    Type,
    Value,
    verify,
)
from stategrad.ir.opdef import ROWS

F32 = Type.parse("f32[]")
I32 = Type.parse("i32[]")


LENGTHS = {"carry": 1, "each": 0, "length": 3, "reverse": False}


def function(*operations: Operation, params=(), results=(), local=(), name: str = "f") -> Function:
    return Function(name, Region(tuple(params), operations, tuple(results), tuple(local)))


def op(name: str, *operands: Value, result: Value | None = None, regions=(), **attributes) -> Operation:
    return Operation(ROWS[name], operands, () if result is None else (result,), attributes, tuple(regions))


def module(*functions: Function, cells=()) -> Module:
    return Module({c.name: c for c in cells}, {f.name: f for f in functions})


def complaint(broken: Module) -> str:
    with pytest.raises(IRVerifyError) as caught:
        verify(broken)
    return str(caught.value)


def test_a_sound_module_passes() -> None:
    s, x = Cell("s", F32), Value(F32, "x")
    y = Value(F32, "y")
    callee = function(op("read", result=y, cell=s), results=(y,), name="g")
    z = Value(F32, "z")
    verify(
        module(callee, function(op("call", result=z, callee=callee), params=(x,), results=(z, x)), cells=(s,))
    )


def test_the_excerpt_points_at_the_operation() -> None:
    x, y, z = (Value(F32, n) for n in "xyz")
    assert complaint(module(function(op("sin", x, result=y), op("cos", z, result=z), params=(x,)))) == (
        "the operand %z: f32[] is defined nowhere before\n"
        "  2 |   %y: f32[] = sin %x\n"
        "  3 |   %z: f32[] = cos %z\n"
        "    |               ^"
    )


def test_the_excerpt_of_a_header_points_at_the_function() -> None:
    x = Value(F32, "x")
    assert complaint(module(function(results=(x,)))) == (
        "the region's result %x: f32[] is defined nowhere before\n  1 | func @f() -> f32[] {\n    |      ^"
    )


def test_values_are_defined_before_they_are_used() -> None:
    x, y, z = (Value(F32, n) for n in "xyz")
    late = function(op("sin", y, result=z), op("cos", x, result=y), params=(x,))
    assert "the operand %y: f32[] is defined nowhere before" in complaint(module(late))


def test_regions_are_isolated() -> None:
    x, y, z = (Value(F32, n) for n in "xyz")
    inside = Region((), (op("sin", x, result=y),), (y,))
    leak = function(op("remat", result=z, regions=[inside]), params=(x,))
    assert "the operand %x: f32[] is defined outside this region" in complaint(module(leak))
    inside = Region((), (op("sin", x, result=y),), (y,))
    outside = Region((x,), (), (x,))
    leak = function(op("remat", z, result=y, regions=[outside]), params=(z,), results=(x,))
    assert "the region's result %x: f32[] is defined outside this region" in complaint(module(leak))


def test_values_regions_and_operations_stand_in_one_place() -> None:
    x, y = Value(F32, "x"), Value(F32, "y")
    assert "the value %x: f32[] stands in two places" in complaint(module(function(params=(x, x))))
    twice = op("sin", x, result=y)
    assert "an operation stands in two places" in complaint(module(function(twice, twice, params=(x,))))
    again = function(op("sin", x, result=y), op("cos", x, result=y), params=(x,))
    assert "the value %y: f32[] stands in two places" in complaint(module(again))
    region = Region((), (), ())
    shared = function(op("remat", regions=[region]), op("remat", regions=[region]))
    assert "a region stands in two places" in complaint(module(shared))


def test_local_cells_stand_in_one_place() -> None:
    local = Cell("t", F32)
    regions = [Region((), (), (), (local,)) for _ in range(2)]
    twice = function(*(op("remat", regions=[r]) for r in regions))
    assert "the local cell $t stands in two places" in complaint(module(twice))
    own = function(local=(local,))
    assert "the local cell $t is a cell of the module too" in complaint(module(own, cells=(local,)))


def test_types_are_those_of_the_rule() -> None:
    x, y = Value(F32, "x"), Value(I32, "y")
    wrong = function(op("sin", x, result=y), params=(x,))
    assert "sin gives (f32[]), and its results are (i32[])" in complaint(module(wrong))
    refused = function(op("add", x, y, result=Value(F32)), params=(x, y))
    assert complaint(module(refused)).startswith("add(f32[], i32[]): ")
    none = function(Operation(ROWS["sin"], (x,), ()), params=(x,))
    assert "sin gives (f32[]), and its results are ()" in complaint(module(none))


def test_attributes_are_those_of_the_row() -> None:
    x, y = Value(F32, "x"), Value(F32, "y")
    extra = function(op("sin", x, result=y, axis=0), params=(x,))
    assert "sin takes the attributes {}, not {axis}" in complaint(module(extra))
    listed = function(op("reduce_sum", x, result=y, axes=[]), params=(x,))
    assert "the attribute axes is a list; sequences in attributes are tuples" in complaint(module(listed))


def test_a_rule_that_fails_in_its_own_way_is_a_complaint_too() -> None:
    x, y = Value(F32, "x"), Value(F32, "y")
    odd = function(op("reduce_sum", x, result=y, axes=np.array([[1, 2], [3, 4]])), params=(x,))
    assert "reduce_sum" in complaint(module(odd))


def test_cells_are_the_modules_own_or_local_around() -> None:
    s, y = Cell("s", F32), Value(F32, "y")
    reads = function(op("read", result=y, cell=s))
    assert "the cell $s is neither the module's nor local here" in complaint(module(reads))
    assert "the cell $s is neither" in complaint(module(reads, cells=(Cell("s", F32),)))
    inner = Region((), (), (), (s,))
    after = function(op("remat", regions=[inner]), op("read", result=y, cell=s))
    assert "the cell $s is neither" in complaint(module(after))
    inner = Region((), (op("read", result=y, cell=s),), ())
    verify(module(function(op("remat", regions=[inner]), local=(s,))))


def test_names_in_the_module_are_the_things_own() -> None:
    assert "the function @f stands under the name 'g'" in complaint(Module({}, {"g": function()}))
    assert "the cell $s stands under the name 't'" in complaint(Module({"t": Cell("s", F32)}, {}))


def test_callees_stand_before_their_callers() -> None:
    callee = function(name="g")
    caller = function(op("call", callee=callee))
    verify(module(callee, caller))
    assert "the function @g stands after its caller" in complaint(module(caller, callee))
    assert "the function @g is not in the module" in complaint(module(caller))
    other = function(name="g")
    assert "the function @g is not the one of that name in the module" in complaint(module(other, caller))


def test_region_results_must_fit_the_operation() -> None:
    b = Builder()
    x, i = b.param(F32, "x"), Value(I32, "i")
    body = Region((i,), (), (i,))
    scan = Operation(ROWS["scan"], (x,), (Value(F32),), LENGTHS, (body,))
    assert "the parameters of the body of scan" in complaint(module(function(scan, params=(x,))))


def test_operations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        op("sin", Value(F32), result=Value(F32)).location = None
