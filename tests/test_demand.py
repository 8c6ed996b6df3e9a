"""What nobody asks the derivative of is neither differentiated nor in the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.ir import (
    Builder,
    Cell,
    DerivativeError,
    Function,
    Module,
    Type,
    Value,
    evaluate,
    lookup,
    parse,
    verify,
    walk,
)
from stategrad.passes import demand, gradient_function, jvp_function, linearize_function


def halvings(x):
    """How often a number is halved until it is small, and what is left of it."""
    return jax.lax.while_loop(lambda c: c[1] > 0.1, lambda c: (c[0] + 1.0, c[1] / 2), (0.0, jnp.abs(x)))


def test_an_unbounded_loop_may_make_the_auxiliary_value():
    def loss(x):
        return jnp.sin(x) * x, halvings(x * x)

    expected = jnp.cos(1.3) * 1.3 + jnp.sin(1.3)
    gradient, aux = sg.grad(loss, has_aux=True)(1.3)
    assert float(gradient) == pytest.approx(float(expected), rel=1e-6)
    assert list(map(float, aux)) == pytest.approx(list(map(float, halvings(1.3 * 1.3))))
    pulled = sg.vjp(loss, 1.3, has_aux=True)[1](1.0)
    assert float(pulled) == pytest.approx(float(expected), rel=1e-6)


def test_an_unbounded_loop_may_update_a_state_that_the_loss_read():
    """The loss reads the scale; only what comes after it is made by the loop."""
    scale = sg.State(jnp.float32(1.5))

    def loss(x):
        out = jnp.tanh(x * scale.value)
        scale.value = scale.value + halvings(out)[1]
        return out

    def pure(scale, x):
        return jnp.tanh(x * scale)

    by_scale, by_x = jax.grad(pure, (0, 1))(1.5, 0.7)
    after = 1.5 + halvings(pure(1.5, 0.7))[1]
    found = sg.grad(loss, grad_states=scale, argnums=0)(0.7)
    assert [float(g) for g in found] == pytest.approx([float(by_scale), float(by_x)], rel=1e-6)
    assert float(scale.value) == pytest.approx(float(after), rel=1e-6)


def test_what_is_wanted_of_an_unbounded_loop_is_still_an_error():
    def loss(x):
        return halvings(x)[1], x

    with pytest.raises(sg.errors.GradientError, match="bounded_while_loop"):
        sg.grad(loss, has_aux=True)(1.3)


WRITTEN = """
state $s: f64[]
state $log: f64[]

func @f(%x: f64[]) -> (f64[], f64[]) reads $s writes $log, $s {
  %s: f64[] = read $s
  %y: f64[] = mul %s, %x
  %e: f64[] = exp %y
  %t: f64[] = tanh %e
  write $log, %t
  %u: f64[] = sin %t
  write $s, %u
  %z: f64[] = mul %y, %y
  return %z, %u
}
"""


def test_no_tangent_and_no_residual_is_made_for_what_nobody_wants():
    module = parse(WRITTEN)
    f, cells = module.functions["f"], module.cells
    made = linearize_function(f, [True], [cells["s"]], None, [0])
    assert {op.name for op in made.lin.body.operations} == {"read", "mul", "add", "take"}
    assert made.results == (0,)
    assert len(made.saved) + len(made.forwarded) == 3, "x, s and y"
    for driver in (gradient_function, jvp_function):
        ops = [op.name for op in walk(driver(f, [0], [cells["s"]], [0]).body)]
        assert (ops.count("exp"), ops.count("tanh"), ops.count("sin"), ops.count("cos")) == (1, 1, 1, 0)


REUSED = """
state $s: f64[]

func @f(%x: f64[], %y: f64[]) -> (f64[], f64[]) accumulates $s reads $s takes $s writes $s {
  write $s, %x
  %old: f64[] = take $s
  accumulate $s, %y
  %new: f64[] = read $s
  return %new, %old
}
"""


@pytest.mark.parametrize("results", [[0], [1], [0, 1]])
def test_a_cell_that_held_what_nobody_wants_starts_again_from_zero(results):
    module = parse(REUSED)
    f = module.functions["f"]
    verify(Module.of([made := gradient_function(f, [0, 1], (), results)]))
    found, _ = evaluate(
        made, [np.float64(v) for v in (2, 3, *([1] * len(results)))], {module.cells["s"]: np.float64(5)}
    )
    assert [float(g) for g in found[2:]] == [float(1 in results), float(0 in results)]


SHARED = """
func @g(%x: f64[], %y: f64[]) -> (f64[], f64[]) {
  %a: f64[] = mul %x, %x
  %b: f64[] = exp %y
  return %a, %b
}

func @f(%x: f64[]) -> (f64[], f64[]) {
  %a: f64[], %b: f64[] = call @g, %x, %x
  %c: f64[], %d: f64[] = call @g, %b, %a
  return %a, %d
}
"""


def test_a_function_serves_callers_who_want_different_things():
    module = parse(SHARED)
    for results, expected in (([0], 6.0), ([1], 6 * np.exp(9.0)), ([0, 1], 6 + 6 * np.exp(9.0))):
        made = gradient_function(module.functions["f"], [0], (), results)
        verify(Module.of([made]))
        found, _ = evaluate(made, [np.float64(v) for v in (3.0, *[1.0] * len(results))])
        assert found[2] == pytest.approx(expected)


def nested(depth: int) -> Function:
    """Loops in loops that carry a value and change a cell."""
    cell, scan = Cell("s", Type.parse("f64[]")), lookup("scan")
    attributes = {"carry": 1, "each": 0, "length": 2, "reverse": False}
    b, x = Builder(), Value(cell.type, "x")
    b.write(b.sin(x), cell=cell)
    body = b.region([x], [b.read(cell=cell)])
    for _ in range(depth):
        b, x = Builder(), Value(cell.type, "x")
        body = b.region([x], b.emit(scan, [x], attributes, [body]))
    return Function("f", body)


def test_deep_loops_are_walked_a_few_times_a_level(monkeypatch):
    walks = []
    walk_once = demand.Demand._walk
    monkeypatch.setattr(demand.Demand, "_walk", lambda self, *key: walks.append(key) or walk_once(self, *key))

    def count(depth: int) -> int:
        function = nested(depth)
        walks.clear()
        demand.demand_of(function.body, [0], function.effects)
        return len(walks)

    assert count(12) - count(8) <= 8 * 4
    assert count(8) <= 8 * 8


def test_an_operation_without_a_derivative_may_make_what_nobody_wants():
    text = """
func @f(%x: f64[]) -> (f64[], f64[]) {
  %y: f64[] = mul %x, %x
  %z: f64[] = nextafter %x, %y
  return %y, %z
}
"""
    f = parse(text).functions["f"]
    found, _ = evaluate(gradient_function(f, [0], (), [0]), [np.float64(3), np.float64(1)])
    assert found[2] == 6
    with pytest.raises(DerivativeError, match="nextafter"):
        gradient_function(f, [0])
