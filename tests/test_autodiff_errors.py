"""Loops without bounds, and derivatives that do not exist: what errors say, and where."""

import numpy as np
import pytest

from stategrad.ir import DerivativeError, IRTypeError, evaluate, parse
from stategrad.passes import gradient_function, jvp_function, thread_function, transpose_function
from tests.test_autodiff import WRITE_ELSEWHERE, gradient_of, scalars

HALVING = """
state $s: f64[]

func @f(%i: f64[]) -> f64[] reads $s writes $s {
  %o: f64[] = while carry(%i) loc("loop.py":3:4) (%c: f64[]) {
    %s: f64[] = read $s
    %limit: f64[] = constant {value = 0.1}
    %go: bool[] = lt %limit, %s
    yield %go
  } (%d: f64[]) {
    %s1: f64[] = read $s
    %half: f64[] = constant {value = 0.5}
    %h: f64[] = mul %s1, %half
    write $s, %h
    %one: f64[] = constant {value = 1.0}
    %n: f64[] = add %d, %one
    yield %n
  }
  return %o
}
"""


def test_a_while_condition_sees_the_state_its_body_changes():
    module = parse(HALVING)
    f, s = module.functions["f"], module.cells["s"]
    found, state = evaluate(f, scalars(0.0), {s: np.float64(1)})
    assert found[0] == 4 and state[s] == 0.0625
    pure = thread_function(f)
    assert [float(x) for x in evaluate(pure.function, scalars(1.0, 0.0))[0]] == [4, 0.0625]


def test_reverse_mode_through_while_names_the_bounded_loop_and_the_line():
    module = parse(HALVING)
    with pytest.raises(DerivativeError, match=r"(?s)bounded_while_loop.*scan.*loop\.py.*3"):
        gradient_function(module.functions["f"], [0])


def test_forward_mode_needs_no_bound():
    """The state halves four times: the tangent of its end is a sixteenth, the count has none."""
    module = parse(HALVING)
    f, s = module.functions["f"], module.cells["s"]
    made = jvp_function(f, [0], [s], None, [s])
    found, state = evaluate(made, scalars(0.0, 1.0, 1.0), {s: np.float64(1)})
    assert [float(x) for x in found] == [4, 1, 0.0625] and state[s] == 0.0625


def test_an_inactive_while_may_stand_in_a_differentiated_program():
    text = HALVING.replace("return %o", "%sq: f64[] = mul %x, %x\n  return %sq").replace(
        "@f(%i: f64[])", "@f(%i: f64[], %x: f64[])"
    )
    _, (dx,), state = gradient_of(text, args=[1], held={"s": 1.0}, inputs=scalars(0.0, 3.0))
    assert dx == 6 and state["s"] == 0.0625


INTEGERS = """
state $n: i32[]

func @f(%i: i32[], %x: f64[]) -> (i32[], f64[]) reads $n {
  %n: i32[] = read $n
  %m: i32[] = add %n, %i
  return %m, %x
}
"""


@pytest.mark.parametrize(
    ("args", "cells", "results", "final", "message"),
    [
        ([0], [], None, [], r"argument 0 \(%i: i32\[\]\) of @f has no derivative"),
        ([1], ["n"], None, [], r"\$n: i32\[\] has no derivative"),
        ([1], [], [0], [], r"result 0 of @f is i32\[\]: it has no derivative"),
        ([1], [], None, ["n"], r"\$n: i32\[\] has no derivative"),
        ([2], [], None, [], r"@f has 2 parameters, there is no argument 2"),
        ([1], [], [5], [], r"@f has 2 results, there is no result 5"),
    ],
)
def test_what_has_no_derivative_is_named(args, cells, results, final, message):
    module = parse(INTEGERS)
    find = module.cells.__getitem__
    for driver in (gradient_function, jvp_function):
        with pytest.raises(IRTypeError, match=message):
            driver(module.functions["f"], args, list(map(find, cells)), results, list(map(find, final)))


def test_a_second_tangent_for_one_argument_is_an_error():
    module = parse(INTEGERS)
    with pytest.raises(IRTypeError, match="given two tangents"):
        jvp_function(module.functions["f"], [1, 1])


def test_transposing_what_is_not_linear_is_an_error():
    module = parse(WRITE_ELSEWHERE)
    with pytest.raises(DerivativeError):
        transpose_function(module.functions["f"])
