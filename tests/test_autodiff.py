"""Derivatives of hand-written stateful programs with known numbers."""

import math

import numpy as np
import pytest

from stategrad.ir import (
    Cell,
    Derived,
    Function,
    Module,
    evaluate,
    parse,
    verify,
    walk,
)
from stategrad.passes import (
    Fresh,
    gradient_function,
    jvp_function,
    linearize_function,
    thread_function,
    transpose_function,
)


def scalars(*values: float) -> list[np.ndarray]:
    return [np.asarray(v, np.float64) for v in values]


def gradient_of(text: str, args=(0,), wrt=(), held=None, inputs=(), final=()):
    """Results, gradients, final states of @f for cotangents of one."""
    module = parse(text)
    f, cells = module.functions["f"], module.cells
    made = gradient_function(f, args, [cells[c] for c in wrt], None, [cells[c] for c in final])
    verify(Module.of([f, made], cells.values()))
    ones = [np.ones(v.type.shape) for v in made.params[len(f.params) :]]
    state = {cells[k]: np.asarray(v, cells[k].type.dtype.numpy) for k, v in (held or {}).items()}
    found, after = evaluate(made, [*inputs, *ones], state)
    n = len(f.results)
    return found[:n], found[n:], {c.name: v for c, v in after.items()}


REMAT = """
state $s: f64[]

func @f(%y: f64[]) -> f64[] reads $s writes $s {
  %out: f64[] = remat %y (%p: f64[]) {
    %s: f64[] = read $s
    %m: f64[] = mul %p, %s
    %o: f64[] = sin %m
    %one: f64[] = constant {value = 1.0}
    %s1: f64[] = add %s, %one
    write $s, %s1
    yield %o
  }
  LATER
  return %out
}
"""


def test_remat_counts_once_and_sees_the_value_its_forward_saw():
    results, (dy, ds), state = gradient_of(
        REMAT.replace("LATER", ""), wrt=["s"], held={"s": 1.0}, inputs=scalars(1.0)
    )
    assert results[0] == pytest.approx(math.sin(1))
    assert dy == pytest.approx(math.cos(1)) == pytest.approx(0.5403, abs=1e-4)
    assert ds == pytest.approx(math.cos(1))
    assert state["s"] == 2


def test_remat_does_not_see_a_later_write():
    later = "%big: f64[] = constant {value = 100.0}\n  write $s, %big"
    _, (dy,), state = gradient_of(REMAT.replace("LATER", later), held={"s": 1.0}, inputs=scalars(1.0))
    assert dy == pytest.approx(math.cos(1))
    assert state["s"] == 100


COUNTING_SCAN = """
state $k: i32[]

func @f(%y: f64[]) -> f64[] reads $k writes $k {
  %o: f64[] = scan carry(%y) {length = 5, reverse = false} (%c: f64[]) {
    %r: f64[] = remat %c (%p: f64[]) {
      %k: i32[] = read $k
      %one: i32[] = constant {value = 1}
      %k1: i32[] = add %k, %one
      write $k, %k1
      %s: f64[] = sin %p
      yield %s
    }
    yield %r
  }
  return %o
}
"""


def test_a_scan_over_a_checkpointed_body_that_counts_counts_each_step_once():
    results, (dy,), state = gradient_of(COUNTING_SCAN, held={"k": 0}, inputs=scalars(0.5))
    x, slope = 0.5, 1.0
    for _ in range(5):
        slope, x = slope * math.cos(x), math.sin(x)
    assert state["k"] == 5
    assert results[0] == pytest.approx(x)
    assert dy == pytest.approx(slope)


WRITE_ELSEWHERE = """
state $log: f64[]
state $w: f64[]

func @f(%x: f64[]) -> f64[] reads $log, $w writes $log {
  %w: f64[] = read $w
  %y: f64[] = mul %x, %w
  write $log, %y
  %back: f64[] = read $log
  %out: f64[] = mul %back, %back
  return %out
}
"""


def test_a_differentiated_value_may_pass_through_a_state_not_differentiated_by():
    results, (dx, dw), state = gradient_of(
        WRITE_ELSEWHERE, wrt=["w"], held={"log": 7.0, "w": 3.0}, inputs=scalars(2.0)
    )
    assert results[0] == 36 and state["log"] == 6
    assert dx == 2 * 6 * 3 and dw == 2 * 6 * 2


def test_the_gradient_is_by_the_value_on_entry():
    _, (dx, dlog), _ = gradient_of(
        WRITE_ELSEWHERE, wrt=["log"], held={"log": 7.0, "w": 3.0}, inputs=scalars(2.0)
    )
    assert dx == 36 and dlog == 0


def test_the_final_value_of_a_state_has_a_cotangent():
    _, (dx, dlog), _ = gradient_of(
        WRITE_ELSEWHERE, wrt=["log"], held={"log": 7.0, "w": 3.0}, inputs=scalars(2.0), final=["log"]
    )
    assert dx == 36 + 3 and dlog == 0


def test_an_untouched_state_passes_its_final_cotangent_through():
    text = "state $w: f64[]\n\nfunc @f(%x: f64[]) -> f64[] {\n  return %x\n}\n"
    _, (dx, dw), _ = gradient_of(text, wrt=["w"], held={"w": 1.0}, inputs=scalars(1.0), final=["w"])
    assert dx == 1 and dw == 1


def test_things_asked_for_twice_come_twice_and_what_nothing_depends_on_is_zero():
    module = parse(WRITE_ELSEWHERE)
    f, w, log = module.functions["f"], module.cells["w"], module.cells["log"]
    made = gradient_function(f, [0, 0], [w, log, w], [0, 0], [log, log])
    found, _ = evaluate(made, scalars(2.0, 1.0, 1.0, 1.0, 1.0), {w: scalars(3.0)[0], log: scalars(7.0)[0]})
    assert [float(x) for x in found[1:]] == [2 * 36 + 6, 2 * 36 + 6, 2 * 24 + 4, 0, 2 * 24 + 4]


SQUARING = """
state $s: f64[]

func @f(%x: f64[]) -> f64[] reads $s writes $s {
  scan const(%x) {length = 3, reverse = false} (%k: f64[]) {
    %s: f64[] = read $s
    %m: f64[] = mul %s, %s
    %n: f64[] = mul %m, %k
    write $s, %n
    yield
  }
  %end: f64[] = read $s
  return %end
}
"""


def test_gradients_of_gradients_through_a_state_changed_in_a_loop():
    """The result is s^8 x^7."""
    module = parse(SQUARING)
    f, s = module.functions["f"], module.cells["s"]
    x, held, one = 1.1, 0.9, np.float64(1)
    g = gradient_function(f, [0], [s])
    h = gradient_function(g, [0], [s], [1, 2])
    found, after = evaluate(h, scalars(x, 1.0, 1.0, 0.0), {s: np.float64(held)})
    assert found[0] == pytest.approx(held**8 * x**7)
    assert found[1] == pytest.approx(7 * held**8 * x**6)
    assert found[2] == pytest.approx(8 * held**7 * x**7)
    assert found[3] == pytest.approx(42 * held**8 * x**5)
    assert found[4] == pytest.approx(56 * held**7 * x**6)
    third = gradient_function(h, [0], [s], [4])
    found, _ = evaluate(third, [*scalars(x, 1.0, 1.0, 0.0), one], {s: np.float64(held)})
    assert found[-2] == pytest.approx(6 * 56 * held**7 * x**5)
    assert found[-1] == pytest.approx(7 * 56 * held**6 * x**6)
    assert after[s] == pytest.approx(held**8 * x**7)


def test_forward_over_reverse_is_the_hessian():
    module = parse(SQUARING)
    f, s = module.functions["f"], module.cells["s"]
    g = gradient_function(f, [0], [s])
    made = jvp_function(g, [0], [], [1, 2])
    found, _ = evaluate(made, scalars(1.1, 1.0, 1.0), {s: np.float64(0.9)})
    assert found[-2] == pytest.approx(42 * 0.9**8 * 1.1**5)
    assert found[-1] == pytest.approx(56 * 0.9**7 * 1.1**6)


RNN = """
state $h: f64[3]
state $n: i32[]
state $w: f64[3,3]

func @f(%xs: f64[5,3]) -> f64[] reads $h, $n, $w writes $h, $n {
  %ys: f64[5,3] = scan each(%xs) {length = 5, reverse = false} (%x: f64[3]) {
    %n0: i32[] = read $n
    %one: i32[] = constant {value = 1}
    %n1: i32[] = add %n0, %one
    write $n, %n1
    %w: f64[3,3] = read $w
    %h0: f64[3] = read $h
    %wh: f64[3] = dot %w, %h0 {contract = [[1], [0]], batch = [[], []], precision = PRECISION, to = f64}
    %s: f64[3] = add %wh, %x
    %t: f64[3] = tanh %s
    write $h, %t
    yield %t
  }
  %h: f64[3] = read $h
  %sq: f64[3] = mul %h, %h
  %loss: f64[] = reduce_sum %sq {axes = [0]}
  return %loss
}
""".replace("PRECISION", '["default", "default"]')


def rnn() -> tuple[Function, dict[str, Cell]]:
    module = parse(RNN)
    return module.functions["f"], dict(module.cells)


def test_residuals_are_few_and_nothing_read_again_is_saved():
    f, cells = rnn()
    made = linearize_function(f, [False], [cells["w"]])
    saved = [made.fwd.results[i].type for i in made.saved]
    assert [f for f in made.forwarded if isinstance(f, Cell)] == [cells["w"]]
    assert sum(t.size for t in saved) <= 15 + 15 + 15 + 3
    assert not any(op.name == "constant" and not op.location for op in made.lin.body.operations)
    assert made.lin.attributes["known"] == len(made.saved) + len(made.forwarded)


def test_shadows_keep_what_they_shadow_as_data_and_names_say_so():
    f, cells = rnn()
    names = Fresh.beside(f)
    made = linearize_function(f, [True], [cells["w"]], names)
    shadow = made.shadows[cells["w"]]
    assert (shadow.name, shadow.role, shadow.of) == ("w.t", "tangent", cells["w"])
    back = transpose_function(made.lin, names=names)
    ct = back.cotangent_cells[shadow]
    assert (ct.name, ct.role, ct.of) == ("w.ct", "cotangent", cells["w"])
    assert (made.fwd.name, made.lin.name, back.function.name) == ("f.fwd", "f.lin", "f.lin.T")
    assert made.lin.params[-1].name == "d_xs"
    assert linearize_function(f, [True], [cells["w"]], names).shadows[cells["w"]].name == "w.t1"


def test_derived_operations_say_where_they_come_from():
    text = RNN.replace("%t: f64[3] = tanh %s", '%t: f64[3] = tanh %s loc("rnn.py":7:3)')
    module = parse(text)
    f, cells = module.functions["f"], module.cells
    made = gradient_function(f, [0], [cells["w"]])
    told = {str(op.location) for op in walk(made.body) if isinstance(op.location, Derived)}
    assert 'linearize("rnn.py":7:3)' in told
    assert 'transpose(linearize("rnn.py":7:3))' in told


def test_the_gradient_of_an_rnn_against_central_differences():
    f, cells = rnn()
    rng = np.random.default_rng(0)
    xs, w, h = rng.standard_normal((5, 3)), rng.standard_normal((3, 3)), rng.standard_normal(3)
    made = gradient_function(f, [0], [cells["w"], cells["h"]])
    state = {cells["w"]: w, cells["h"]: h, cells["n"]: np.int32(0)}
    (_, dx, dw, dh), after = evaluate(made, [xs, np.float64(1)], state)
    assert after[cells["n"]] == 5

    def loss(e: float, which: str) -> float:
        moved = {**state, cells["w"]: w + e * rw * (which == "w"), cells["h"]: h + e * rh * (which == "h")}
        return float(evaluate(f, [xs + e * rx * (which == "x")], moved)[0][0])

    rx, rw, rh = rng.standard_normal((5, 3)), rng.standard_normal((3, 3)), rng.standard_normal(3)
    for which, got in (("x", np.sum(dx * rx)), ("w", np.sum(dw * rw)), ("h", np.sum(dh * rh))):
        e = 1e-6
        assert got == pytest.approx((loss(e, which) - loss(-e, which)) / (2 * e), rel=1e-6)


SHARED = """
state $w: f64[]

func @layer(%x: f64[]) -> f64[] reads $w {
  %w: f64[] = read $w
  %m: f64[] = mul %x, %w
  %y: f64[] = sin %m
  return %y
}

func @f(%x: f64[]) -> f64[] reads $w {
  %1: f64[] = call @layer, %x
  %2: f64[] = call @layer, %1
  %3: f64[] = call @layer, %2
  return %3
}
"""


def test_a_shared_function_is_differentiated_once():
    module = parse(SHARED)
    f, w = module.functions["f"], module.cells["w"]
    made = gradient_function(f, [0], [w])
    verify(Module.of([made]))
    callees = {op.attributes["callee"] for op in walk(made.body) if op.name == "call"}
    assert len(callees) == 2, sorted(c.name for c in callees)
    found, _ = evaluate(made, scalars(0.7, 1.0), {w: np.float64(1.3)})
    x, dx, dw = 0.7, 1.0, 0.0
    for _ in range(3):
        slope = math.cos(1.3 * x)
        dw = dw * slope * 1.3 + slope * x
        dx, x = dx * slope * 1.3, math.sin(1.3 * x)
    assert [float(v) for v in found] == pytest.approx([x, dx, dw])


def test_the_cells_of_the_program_are_all_that_a_gradient_touches():
    module = parse(SHARED)
    made = gradient_function(module.functions["f"], [0], [module.cells["w"]])
    assert set(made.effects) == {module.cells["w"]}
    assert thread_function(made).outputs == ()
