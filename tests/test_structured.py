"""Structured operations: type rules, meaning, threading, batching, lowering, on hand-written programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad
from stategrad.backend.ir_call import Program
from stategrad.ir import (
    Builder,
    Cell,
    EvaluationError,
    Function,
    IRError,
    IRTypeError,
    Module,
    Type,
    Value,
    evaluate,
    lookup,
    parse,
    verify,
)
from stategrad.passes import batch_function, gradient_function, thread_function, with_local_cells

F32, I32, BOOL = Type.parse("f32[]"), Type.parse("i32[]"), Type.parse("bool[]")


def function(text: str, name: str = "f") -> Function:
    module = parse(text)
    verify(module)
    return module.functions[name]


def f32(*values: float) -> list[np.ndarray]:
    return [np.asarray(v, np.float32) for v in values]


def compiled(f: Function, args: list[np.ndarray]) -> list[np.ndarray]:
    return jax.jit(lambda *xs: Program(f).bind(*xs))(*args)


# ------------------------------------------------------------------------------------------ type rules
def body(params: list[Type], results: list[Type]):
    b = Builder()
    values = [Value(t) for t in params]
    return b.region(values, [b.zeros(t) for t in results])


SCAN = {"carry": 1, "each": 0, "length": 3, "reverse": False}


@pytest.mark.parametrize(
    ("name", "operands", "attributes", "regions", "message"),
    [
        ("scan", [F32], {**SCAN, "length": -1}, [body([F32], [F32])], "length is -1, expected 0 or more"),
        ("scan", [F32], {**SCAN, "reverse": 1}, [body([F32], [F32])], "reverse is 1, expected .* type bool"),
        (
            "scan",
            [F32],
            {"carry": 1},
            [body([F32], [F32])],
            "takes the attributes {carry, each, length, reverse}",
        ),
        ("scan", [F32], SCAN, [], "0 regions, expected 1"),
        ("scan", [], SCAN, [body([], [])], "0 operands, expected at least 1 carry and 0 each"),
        ("scan", [F32], SCAN, [body([F32], [I32])], r"given \(i32\[\]\), expected \(f32\[\]\)"),
        ("scan", [F32], SCAN, [body([I32], [F32])], r"parameters of the body of scan: given \(i32\[\]\)"),
        ("scan", [F32], {**SCAN, "carry": 0, "each": 1}, [body([], [])], "expected a leading axis of 3"),
        (
            "cond",
            [F32],
            {},
            [body([], [])] * 2,
            r"an index of type bool\[\] or i32\[\] first, given \(f32\[\]\)",
        ),
        ("cond", [BOOL], {}, [body([], [])] * 3, "3 regions, expected 2"),
        ("cond", [I32], {}, [], "0 regions"),
        ("cond", [BOOL, F32], {}, [body([F32], [F32]), body([F32], [])], "results of branch 1 of cond"),
        ("cond", [BOOL, F32], {}, [body([F32], []), body([], [])], "parameters of branch 1 of cond"),
        ("remat", [F32], {}, [body([], [])], "parameters of the body of remat"),
        ("remat", [F32], {"policy": 1}, [body([F32], [])], "takes the attributes {}, not {policy}"),
        (
            "while",
            [F32],
            {"carry": 1, "cond_const": 0},
            [body([F32], [F32]), body([F32], [F32])],
            "condition",
        ),
        ("while", [F32], {"carry": 1, "cond_const": 0}, [body([F32], [BOOL]), body([F32], [])], "yields"),
        ("while", [F32], {"carry": 2, "cond_const": 0}, [body([], [BOOL]), body([], [])], "at least 2 carry"),
        ("call", [], {"callee": "f"}, [], "a function as the attribute callee, given 'f'"),
        ("call", [F32], {"callee": Function("g", body([], []))}, [], r"call of @g: given \(f32\[\]\)"),
    ],
)
def test_type_rules_say_what_does_not_fit(name, operands, attributes, regions, message):
    b = Builder()
    with pytest.raises(IRTypeError, match=message):
        b.emit(lookup(name), [Value(t) for t in operands], attributes, regions)


def test_evaluation_says_what_is_missing():
    f = function(
        "state $s: f32[]\n\nfunc @f(%x: f32[]) -> f32[] reads $s {\n  %s: f32[] = read $s\n  return %s\n}\n"
    )
    (s,) = f.effects
    with pytest.raises(EvaluationError, match="takes 1 arguments, not 0"):
        evaluate(f, [])
    with pytest.raises(EvaluationError, match=r"touches \$s, which was given no value"):
        evaluate(f, f32(1))
    with pytest.raises(
        EvaluationError, match=r"argument 0 \(%x\) of @f has the type f64\[\], expected f32\[\]"
    ):
        evaluate(f, [np.float64(1)], {s: f32(1)[0]})
    with pytest.raises(EvaluationError, match=r"\$s has the shape \[2\], expected f32\[\]"):
        evaluate(f, f32(1), {s: np.ones(2, np.float32)})


# ------------------------------------------------------------------------------------------- threading
COUNTDOWN = """
state $n: i32[]
state $seen: f32[]

func @f(%x: f32[], %step: f32[]) -> f32[] reads $n, $seen writes $n, $seen {
  %y: f32[] = while carry(%x) body_const(%step) (%c: f32[]) {
    %n: i32[] = read $n
    %one: i32[] = constant {value = 1}
    %less: i32[] = sub %n, %one
    write $n, %less
    %zero: i32[] = constant {value = 0}
    %go: bool[] = ge %less, %zero
    yield %go
  } (%d: f32[], %k: f32[]) {
    %s: f32[] = read $seen
    %m: f32[] = add %s, %d
    write $seen, %m
    %e: f32[] = add %d, %k
    yield %e
  }
  return %y
}
"""


@pytest.mark.parametrize("times", [0, 1, 3])
def test_a_condition_that_writes_is_rotated(times):
    f = function(COUNTDOWN)
    n, seen = f.effects
    held = {n: np.int32(times), seen: np.float32(0)}
    found, after = evaluate(f, f32(1, 10), held)
    total = sum(1 + 10 * i for i in range(times))
    assert (found[0], after[n], after[seen]) == (1 + 10 * times, -1, total)
    pure = thread_function(f)
    assert not pure.function.effects and pure.outputs == (n, seen)
    args = [*(held[c] for c in pure.inputs), *f32(1, 10)]
    for results in (evaluate(pure.function, args)[0], compiled(pure.function, args)):
        assert [float(x) for x in results] == [1 + 10 * times, -1, total]


STORE = """
state $log: f32[]
state $w: f32[]

func @f(%x: f32[]) -> f32[] reads $w writes $log {
  write $log, %x
  %w: f32[] = read $w
  %y: f32[] = mul %x, %w
  return %y
}
"""


def test_what_a_cell_held_is_no_input_where_it_does_not_matter():
    f = function(STORE)
    by_name = {c.name: c for c in f.effects}
    made = thread_function(f)
    assert made.inputs == (by_name["w"],) and made.outputs == (by_name["log"],)
    kept = thread_function(f, [by_name["w"]])
    assert set(kept.outputs) == set(by_name.values())
    results, _ = evaluate(kept.function, f32(3, 2))
    assert dict(zip((None, *kept.outputs), map(float, results), strict=True)) == {
        None: 6,
        by_name["log"]: 2,
        by_name["w"]: 3,
    }


def test_a_pure_function_is_its_own_twin():
    f = function("func @f(%x: f32[]) -> f32[] {\n  return %x\n}\n")
    assert thread_function(f).function is f


HELPER = """
state $s: f32[]
state $other: f32[]

func @bump(%x: f32[]) -> f32[] reads $s writes $other accumulates $s {
  accumulate $s, %x
  write $other, %x
  %s: f32[] = read $s
  return %s
}

func @f(%x: f32[]) -> f32[] reads $s writes $other accumulates $s {
  %y: f32[] = scan carry(%x) {length = 3, reverse = false} (%c: f32[]) {
    %d: f32[] = call @bump, %c
    yield %d
  }
  return %y
}
"""


def test_a_local_cell_reaches_callees_as_an_operand():
    module = parse(HELPER)
    s, other = module.cells["s"], module.cells["other"]
    made = with_local_cells(module.functions["f"], [s])
    verify(Module.of([made]))
    assert made.body.locals == (s,) and set(made.effects) == {other}
    found, after = evaluate(made, f32(1), {other: np.float32(0)})
    assert found[0] == 4 and after == {other: 2}
    again, _ = evaluate(thread_function(made).function, f32(0, 1))
    assert [float(x) for x in again] == [4, 2]


# -------------------------------------------------------------------------------------------- branches
SWITCH = """
func @f(%i: i32[], %x: f32[]) -> f32[] {
  %y: f32[] = cond %i, %x (%a: f32[]) {
    yield %a
  } (%b: f32[]) {
    %n: f32[] = neg %b
    yield %n
  } (%c: f32[]) {
    %q: f32[] = mul %c, %c
    yield %q
  }
  return %y
}
"""


@pytest.mark.parametrize(("index", "expected"), [(-5, 3), (0, 3), (1, -3), (2, 9), (7, 9)])
def test_an_integer_index_is_clamped_evaluated_compiled_and_batched(index, expected):
    f, args = function(SWITCH), [np.int32(index), *f32(3)]
    assert evaluate(f, args)[0] == [expected]
    assert compiled(f, args)[0] == expected
    many = batch_function(f, [True, False], 2).function
    assert evaluate(many, [np.asarray([index, 1], np.int32), *f32(3)])[0][0].tolist() == [expected, -3]
    grad = gradient_function(f, [1])
    slope = {3: 1, -3: -1, 9: 6}[expected]
    assert evaluate(grad, [*args, *f32(1)])[0][1] == slope


# -------------------------------------------------------------------------------------------- batching
DOUBLING = """
func @f(%x: f32[], %limit: f32[], %factor: f32[]) -> (f32[], i32[]) {
  %zero: i32[] = constant {value = 0}
  %y: f32[], %n: i32[] = while carry(%x, %zero) cond_const(%limit) body_const(%factor) {}
      (%a: f32[], %i: i32[], %l: f32[]) {
    %go: bool[] = lt %a, %l
    yield %go
  } (%b: f32[], %j: i32[], %k: f32[]) {
    %m: f32[] = mul %b, %k
    %one: i32[] = constant {value = 1}
    %j1: i32[] = add %j, %one
    yield %m, %j1
  }
  return %y, %n
}
""".replace("{}\n      (", "(")


@pytest.mark.parametrize(
    "flags", [(True, False, False), (False, True, False), (False, False, True), (True,) * 3]
)
def test_a_batched_while_stops_for_each_element_on_its_own(flags):
    f = function(DOUBLING)
    columns = [np.asarray(v, np.float32) for v in ([1, 3, 200], [100, 5, 50], [2, 3, 10])]
    args = [c if flag else c[0] for c, flag in zip(columns, flags, strict=True)]
    many = batch_function(f, flags, 3).function
    found, _ = evaluate(many, args)
    again = compiled(many, args)
    for i in range(3):
        one, _ = evaluate(f, [c[i] if flag else c for c, flag in zip(args, flags, strict=True)])
        assert [x[i] for x in found] == one == [x[i] for x in again]


def test_batch_wants_the_right_flags():
    f = function(STORE)
    with pytest.raises(IRError, match="2 parameters, given 3 flags"):
        batch_function(thread_function(f).function, [True, True, True], 2)
    with pytest.raises(IRError, match="1 results, given 2 flags"):
        batch_function(f, [True], 2, results=[True, False])


# ----------------------------------------------------------------------------------------------- loops
LOOP = """
func @f(%x: f32[], %xs: f32[N], %k: f32[]) -> (f32[], f32[N]) {
  %y: f32[], %ys: f32[N] = scan carry(%x) each(%xs) const(%k) {length = N, reverse = REVERSE}
      (%c: f32[], %e: f32[], %f: f32[]) {
    %m: f32[] = mul %c, %f
    %n: f32[] = add %m, %e
    yield %n, %c
  }
  return %y, %ys
}
""".replace("}\n      (", "} (")


@pytest.mark.parametrize("length", [0, 1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_evaluated_and_compiled(length, reverse):
    f = function(
        LOOP.replace("N]", f"{length}]")
        .replace("= N", f"= {length}")
        .replace("REVERSE", str(reverse).lower())
    )
    xs = np.arange(length, dtype=np.float32)
    carry, stacked = 1.0, np.zeros(length)
    for i in reversed(range(length)) if reverse else range(length):
        stacked[i] = carry
        carry = carry * 2 + float(xs[i])
    args = [*f32(1), xs, *f32(2)]
    for y, ys in (evaluate(f, args)[0], compiled(f, args)):
        assert float(y) == carry and np.array_equal(ys, stacked.astype(np.float32))


def test_a_callee_that_nothing_calls_with_a_cell_of_its_own_starts_at_zero_each_time():
    text = """
func @count() -> f32[] local $n: f32[] {
  %one: f32[] = constant {value = 1.0}
  accumulate $n, %one
  %n: f32[] = read $n
  return %n
}

func @f() -> f32[] {
  %a: f32[] = call @count
  %b: f32[] = call @count
  %c: f32[] = add %a, %b
  return %c
}
"""
    f = function(text)
    assert evaluate(f, [])[0] == [2]
    assert evaluate(thread_function(f).function, [])[0] == [2]


def test_cells_are_compared_by_identity():
    one, two = Cell("s", F32), Cell("s", F32)
    b = Builder()
    f = b.function("f", [], [b.add(b.read(cell=one), b.read(cell=two))])
    assert evaluate(f, [], {one: np.float32(1), two: np.float32(2)})[0] == [3]


def test_a_branch_may_save_a_key():
    def dropped(x, key):
        keep = jax.random.bernoulli(jax.random.split(key)[0], 0.5, x.shape)
        return jax.checkpoint(lambda y: jnp.where(keep, jnp.sin(y), 0))(x).sum()

    def loss(x, key, train):
        noisy = jax.checkpoint(lambda y, k: jnp.sin(y) * jax.random.normal(k, y.shape))

        def fresh(y):
            return noisy(y, jax.random.split(key)[1]).sum() + dropped(y, key)

        return jax.lax.cond(train, fresh, lambda y: (y * y).sum(), x)

    x, key = jnp.arange(4.0), jax.random.key(0)
    for train in (jnp.asarray(True), jnp.asarray(False)):
        found = stategrad.jit(stategrad.grad(loss))(x, key, train)
        assert np.allclose(found, jax.grad(loss)(x, key, train), rtol=1e-6)


def test_a_state_made_inside_and_changed_in_a_shared_function_is_differentiated():
    def total(x):
        seen = stategrad.State(jnp.float32(0))

        @jax.jit
        def add(v):
            seen.value = seen.value + jnp.sin(v)
            return seen.value

        y = add(x)
        return (y + add(y)) * seen.value

    def plain(x):
        y = jnp.sin(x)
        end = y + jnp.sin(y)
        return (y + end) * end

    assert np.allclose(stategrad.jit(stategrad.grad(total))(1.0), jax.grad(plain)(1.0))
    assert np.allclose(stategrad.grad(stategrad.grad(total))(1.0), jax.grad(jax.grad(plain))(1.0))
