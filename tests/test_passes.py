"""The simplifying passes: what they keep (the meaning, always), and what they must and must not remove.

Their exact results on small programs stand in `tests/golden/passes`.
"""

import time

import numpy as np
import pytest

from stategrad.ir import Builder, Cell, Function, Module, OpDef, Type, evaluate, parse, verify, walk
from stategrad.passes import (
    CANONICALISE,
    SIMPLIFY,
    Verify,
    canonicalise_function,
    cse_function,
    dce_function,
    fold_function,
    forward_state_function,
    gradient_function,
    hoist_invariants_function,
    hoist_reads_function,
    inline_function,
    parse_pipeline,
    simplify_function,
    thread_function,
)
from tests.program_checks import Inputs, close, select
from tests.random_programs import Program, random_program

F32 = Type.parse("f32[]")
SIMPLIFIERS = (
    dce_function,
    cse_function,
    fold_function,
    forward_state_function,
    hoist_invariants_function,
    hoist_reads_function,
    inline_function,
    canonicalise_function,
)
SETTLES_AT_ONCE = (dce_function, cse_function, hoist_reads_function, hoist_invariants_function)


def names(function: Function) -> list[str]:
    """The operations of a function by name, those in regions included."""
    return [op.name for op in walk(function.body)]


def entry(text: str) -> Function:
    """The function @f of a program."""
    return parse(text).functions["f"]


def check_same(what: str, program: Program, before: Function, after: Function, operands: list) -> None:
    """Results and final states are equal."""
    inputs = Inputs(program)
    results, final = evaluate(before, operands, inputs.cells)
    found, state = evaluate(after, operands, inputs.cells)
    close(f"{what}: results", found, results)
    close(f"{what}: states", select(program.cells, state), select(program.cells, final))


# ------------------------------------------------------------------------------------------------ meaning
@pytest.mark.parametrize("seed", range(40))
def test_before_is_after(seed):
    program = random_program(seed)
    for simplify in SIMPLIFIERS:
        made = simplify(program.main)
        verify(Module.of([made], program.cells))
        check_same(simplify.__name__, program, program.main, made, Inputs(program).args)
        assert simplify not in SETTLES_AT_ONCE or simplify(made) is made


@pytest.mark.parametrize("seed", range(40, 60))
def test_before_is_after_threading(seed):
    program, inputs = random_program(seed), Inputs(random_program(seed))
    made = thread_function(program.main)
    args = [*(random_cell(program, inputs, c.name) for c in made.inputs), *inputs.args]
    expected, _ = evaluate(made.function, args)
    simple = simplify_function(made.function)
    verify(Module.of([simple]))
    close("simplify", evaluate(simple, args)[0], expected)


def random_cell(program: Program, inputs: Inputs, name: str) -> np.ndarray:
    return next(array for cell, array in inputs.cells.items() if cell.name == name)


@pytest.mark.parametrize("seed", range(60, 80))
def test_gradients_before_are_gradients_after(seed):
    """Simplifying commutes with differentiation: before it, after it, both."""
    program = random_program(seed)
    inputs = Inputs(program)
    operands = [*inputs.args, *inputs.cts, *inputs.final]

    def gradient(function: Function) -> Function:
        return gradient_function(function, program.args, program.wrt, None, program.final)

    plain, early = gradient(program.main), gradient(canonicalise_function(program.main))
    check_same("simplified before", program, plain, early, operands)
    check_same("simplified after", program, plain, canonicalise_function(plain), operands)
    check_same("simplified twice", program, plain, canonicalise_function(early), operands)


WHILES = """
state $n: i32[]
state $s: f32[]
state $k: f32[]

func @f(%x: f32[], %limit: i32[]) -> (f32[], f32[], i32[]) reads $n, $s, $k writes $n, $s accumulates $s {
  %zero: i32[] = constant {value = 0}
  %spare: f32[] = sin %x
  %i: i32[], %y: f32[], %z: f32[], %still: f32[] = while carry(%zero, %x, %spare, %x) LIMITS (CARRY) {
    %n0: i32[] = read $n
    %sum: i32[] = add %i0, %n0
    %go: bool[] = lt %sum, %l
    yield %go
  } (%i1: i32[], %y1: f32[], %z1: f32[], %s1: f32[], %p: f32[], %q: f32[]) {
    %one: i32[] = constant {value = 1}
    %n1: i32[] = read $n
    %n2: i32[] = add %n1, %one
    write $n, %n2
    accumulate $s, %p
    write $s, %y1
    %k: f32[] = read $k
    %pq: f32[] = mul %p, %q
    %pk: f32[] = add %pq, %k
    %y2: f32[] = add %pk, %s1
    %z2: f32[] = mul %z1, %z1
    %i2: i32[] = add %i1, %one
    yield %i2, %y2, %z2, %s1
  }
  %last: f32[] = read $s
  return %y, %last, %i
}
""".replace("LIMITS", "cond_const(%limit, %spare) body_const(%x, %x)").replace(
    "CARRY", "%i0: i32[], %y0: f32[], %z0: f32[], %s0: f32[], %l: i32[], %unused: f32[]"
)


@pytest.mark.parametrize("limit", [0, 3, 9])
@pytest.mark.parametrize("simplify", SIMPLIFIERS)
def test_while_before_is_after(simplify, limit):
    module = parse(WHILES)
    function = module.functions["f"]
    made = simplify(function)
    verify(Module.of([made], module.cells.values()))
    args = [np.float32(0.5), np.int32(limit)]
    cells = {c: np.asarray(2, c.type.dtype.numpy) for c in module.cells.values()}
    results, final = evaluate(function, args, cells)
    found, state = evaluate(made, args, cells)
    close("results", found, results)
    close("states", list(state.values()), list(final.values()))


def test_while_loses_what_nobody_needs():
    made = canonicalise_function(entry(WHILES))
    loop = next(op for op in made.body.operations if op.name == "while")
    assert (loop.attributes["carry"], loop.attributes["cond_const"], len(loop.operands)) == (2, 1, 5)
    assert "accumulate" not in names(made)
    assert [op.attributes["cell"].name for op in made.body.operations if op.name == "read"] == ["k", "s"]


def test_nothing_to_do_gives_the_same_module():
    module = parse("func @f(%x: f32[]) -> f32[] {\n  %y: f32[] = sin %x\n  return %y\n}\n")
    for pipeline in (CANONICALISE, SIMPLIFY, parse_pipeline("inline")):
        assert pipeline.run(module, Verify()) is module


def test_passes_are_linear_in_the_size():
    """A chain of fifty thousand operations: quadratic time would be minutes."""
    b = Builder()
    x = b.param(F32)
    y = x
    for _ in range(25_000):
        y = b.sin(b.add(y, x))
    function = b.function("f", [x], [y])
    start = time.process_time()
    assert canonicalise_function(function) is function
    assert time.process_time() - start < 10


# -------------------------------------------------------------------------------------------- what must stay
class Announce(OpDef):
    """An operation that is seen outside the program."""

    name = "announce"
    doc = "Tells somebody."

    def infer(self, types, attributes, regions):
        return tuple(types)

    def evaluate_op(self, machine, op, args):
        return args

    def effects_of(self, op):
        return {}, True

    def lower_op(self, hlo, op, operands):
        return operands


def test_external_operations_stay_as_they_are():
    b, inner = Builder(), Builder()
    x, p = b.param(F32), inner.param(F32)
    for _ in range(2):
        b.emit(Announce(), [x])
        inner.emit(Announce(), [p])
    b.emit(parse_op("remat"), [x], {}, [inner.region([p], [])])
    function = b.function("f", [x], [])
    assert names(canonicalise_function(function)) == names(function)


def parse_op(name: str) -> OpDef:
    """The definition of an operation."""
    return next(op.opdef for op in walk(entry(REMAT).body) if op.name == name)


REMAT = (
    "func @f(%x: f32[]) -> f32[] {\n  %y: f32[] = remat %x (%p: f32[]) {\n    yield %p\n  }\n  return %y\n}\n"
)


def test_barriers_are_not_merged():
    function = entry("""
func @f(%x: f32[]) -> (f32[], f32[]) {
  %a: f32[] = optimization_barrier %x
  %b: f32[] = optimization_barrier %x
  %c: f32[] = sin %a
  %d: f32[] = sin %b
  return %c, %d
}
""")
    assert canonicalise_function(function) is function


def test_constants_are_merged_by_their_bits():
    b = Builder()
    pair = Type.parse("f32[2]")
    values = [0.0, -0.0, np.nan, np.nan, np.float32(0), np.array([1, 2], "f4"), np.array([1, 2], "f4")]
    made = [b.constant(v, pair if np.ndim(v) else F32) for v in values]
    results = cse_function(b.function("f", [], made)).results
    assert results[2] is results[3]
    assert results[5] is results[6]
    assert len({results[0], results[1], results[2]}) == 3


@pytest.mark.parametrize(("name", "value"), [("log", -1.0), ("log", 0.0), ("sqrt", -1.0)])
def test_what_is_not_finite_is_left_to_the_checks(name, value):
    b = Builder()
    y = b.call_row(name, b.constant(value, F32))
    function = b.function("f", [], [y])
    assert fold_function(function) is function


def test_large_constants_are_not_computed():
    b = Builder()
    large = b.constant(np.arange(1000, dtype="f4"), Type.parse("f32[1000]"))
    function = b.function("f", [], [b.sin(large)])
    assert fold_function(function) is function
    full = b.constant(0.5, Type.parse("f32[1000]"))
    made = dce_function(fold_function(b.function("f", [], [b.sin(full)])))
    assert names(made) == ["constant"]
    np.testing.assert_array_equal(evaluate(made, [])[0][0], np.full(1000, np.sin(np.float32(0.5))))


def test_folded_constants_are_what_evaluation_gives():
    function = entry("""
func @f() -> (f32[3], f32[], bool[], i32[2], bf16[2]) {
  %a: f32[3] = constant {value = [1.0, 2.0, 3.5]}
  %b: f32[3] = exp %a
  %c: f32[] = reduce_sum %b {axes = [0]}
  %k: f32[] = constant {value = 40.0}
  %d: bool[] = lt %c, %k
  %i: i32[2] = constant {value = [7, -7]}
  %j: i32[2] = mul %i, %i
  %e: f32[2] = convert %j {to = f32}
  %g: bf16[2] = convert %e {to = bf16}
  return %b, %c, %d, %j, %g
}
""")
    made = dce_function(fold_function(function))
    assert set(names(made)) == {"constant"}
    for found, expected in zip(evaluate(made, [])[0], evaluate(function, [])[0], strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_dce_corrects_how_many_parameters_are_known():
    module = parse("""
func @f.lin(%k: f32[], %l: f32[], %t: f32[]) -> f32[] {known = 2} {
  %y: f32[] = mul %t, %l
  return %y
}

func @f(%x: f32[]) -> f32[] {
  %y: f32[] = call @f.lin, %x, %x, %x
  return %y
}
""")
    made = parse_pipeline("dce").run(module, Verify())
    assert made.functions["f.lin"].attributes == {"known": 1}
    assert dce_function(module.functions["f.lin"]) is module.functions["f.lin"]


def test_a_cell_of_the_caller_is_no_local_cell_of_the_callee():
    """What a callee does to a cell that its caller owns is needed if the caller looks."""
    own = Cell("own", F32)
    inner, b = Builder(), Builder()
    p, x = inner.param(F32), b.param(F32)
    inner.accumulate(p, cell=own)
    callee = inner.function("g", [p], [])
    b.locals.append(own)
    b.call(x, callee=callee)
    function = b.function("f", [x], [b.take(cell=own)])
    assert dce_function(function) is function
    unseen = Builder()
    q = unseen.param(F32)
    unseen.locals.append(own)
    unseen.call(q, callee=callee)
    assert names(dce_function(unseen.function("f", [q], [q]))) == []


def test_inlining_renews_local_cells():
    function = entry("""
func @g(%x: f32[]) -> f32[] local $own: f32[] {
  accumulate $own, %x
  %y: f32[] = take $own
  return %y
}

func @f(%p: f32[]) -> f32[] {
  %a: f32[] = call @g, %p
  %b: f32[] = call @g, %a
  return %b
}
""")
    made = inline_function(function)
    assert "call" not in names(made)
    assert len(set(made.body.locals)) == 2
    assert inline_function(function, size=1) is function
