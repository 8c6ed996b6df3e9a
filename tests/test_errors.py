"""Bad input: a clear error that names State, argument and line, and every State as it was."""

import signal
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

THIS_FILE = "test_errors.py"


@dataclass
class World:
    """The States that the bad calls use."""

    w: sg.State
    n: sg.State
    other: sg.State

    def snapshot(self) -> list[np.ndarray]:
        return [np.array(s.value) for s in (self.w, self.n, self.other)]


@pytest.fixture
def world() -> World:
    return World(
        sg.ParamState(jnp.array([1.0, 2.0]), name="weight"),
        sg.State(3, name="count"),
        sg.State(0.5, name="other"),
    )


def touch(world: World) -> None:
    world.w.value = world.w.value * 2.0
    world.n.value += 1


def non_scalar_loss(world):
    def loss(x):
        touch(world)
        return world.w.value * x

    sg.grad(loss, grad_states=world.w)(1.0)


def loss_is_a_pair(world):
    def loss(x):
        touch(world)
        return x, x

    sg.grad(loss)(1.0)


def loss_is_integer(world):
    sg.grad(lambda x: touch(world) or x.astype(int).sum())(jnp.ones(2))


def loss_is_none(world):
    sg.grad(lambda x: touch(world))(1.0)


def aux_missing(world):
    sg.grad(lambda x: touch(world) or x**2, has_aux=True)(1.0)


def aux_of_three(world):
    sg.grad(lambda x: (x**2, 1.0, 2.0), has_aux=True)(1.0)


def integer_state(world):
    sg.grad(lambda x: touch(world) or x * world.n.value, grad_states=world.n)(1.0)


def integer_argument(world):
    sg.grad(lambda x, k: touch(world) or x * k, argnums=1)(1.0, 3)


def unknown_state(world):
    sg.grad(lambda x: touch(world) or x**2, grad_states=[world.w, world.other])(1.0)


def write_only_state(world):
    def loss(x):
        world.other.value = x
        return world.other.value**2

    sg.grad(loss, grad_states=world.other)(1.0)


def not_a_state(world):
    sg.grad(lambda x: x, grad_states=[world.w, 3.0])(1.0)


def argnums_out_of_range(world):
    sg.grad(lambda x: touch(world) or x**2, argnums=2)(1.0)


def argnums_twice(world):
    sg.grad(lambda x, y: x * y, argnums=(0, -2))(1.0, 2.0)


def argnums_no_integer(world):
    sg.grad(lambda x: x, argnums="x")(1.0)


def structure_changes_in_a_loop(world):
    def loss(x):
        def body(i, _):
            world.w.value = {"now": "a dict of two", "w": world.w.value}

        jax.lax.fori_loop(0, 3, body, None)
        return x

    sg.grad(loss)(1.0)


def shape_changes_in_a_loop(world):
    def body(i, _):
        world.w.value = jnp.concatenate([world.w.value, world.w.value])

    sg.jit(lambda: jax.lax.fori_loop(0, 3, body, None))()


def dtype_changes_in_a_branch(world):
    def bad(x):
        world.n.value = world.n.value * 0.5
        return x

    sg.jit(lambda x: jax.lax.cond(x > 0, bad, lambda x: x, x))(1.0)


def state_as_argument(world):
    sg.jit(lambda s: s)(world.w)


def state_as_gradient_argument(world):
    sg.grad(lambda s: s.value.sum())(world.w)


def state_as_result(world):
    sg.jit(lambda: (touch(world), world.w)[1])()


def string_as_argument(world):
    sg.jit(lambda x, mode: x)(1.0, "train")


def string_as_result(world):
    sg.jit(lambda x: touch(world) or {"loss": x, "mode": "train"})(1.0)


def unhashable_static(world):
    sg.jit(lambda x, k: x, static_argnums=1)(1.0, [1, 2])


def unknown_static_name(world):
    sg.jit(lambda x: x, static_argnames="mode")


def static_and_differentiated(world):
    sg.grad(lambda x, k: x * k, argnums=1, static_argnums=1)(1.0, 3)


def write_under_raw_jit(world):
    jax.jit(lambda: touch(world))()


def read_under_raw_jit(world):
    jax.jit(lambda: world.w.value * 2)()


def write_under_raw_grad(world):
    jax.grad(lambda x: touch(world) or x)(1.0)


def batched_write_under_raw_vmap(world):
    jax.vmap(lambda x: setattr(world.other, "value", x))(jnp.arange(3.0))


def batched_write_under_our_jit(world):
    sg.jit(lambda xs: jax.vmap(lambda x: setattr(world.other, "value", x))(xs))(jnp.arange(3.0))


def write_in_a_scan_under_raw_grad_in_ours(world):
    def loop(x):
        def body(c, _):
            world.other.value = world.other.value * x
            return c, None

        jax.lax.scan(body, 0.0, None, length=2)
        return world.other.value

    sg.jit(lambda x: jax.grad(loop)(x))(2.0)


def state_holding_a_state(world):
    world.w.value = {"inner": world.other}


def write_inside_a_custom_rule(world):
    @jax.custom_jvp
    def f(x):
        world.other.value = x
        return x

    f.defjvp(lambda p, t: (p[0], t[0]))
    sg.grad(lambda x: f(x))(1.0)


def reverse_through_while(world):
    sg.grad(lambda x: jax.lax.while_loop(lambda y: y < 10.0, lambda y: y * 2.0, x))(1.0)


def exception_half_way(world):
    def loss(x):
        touch(world)
        raise ZeroDivisionError("half-way through weight")

    sg.grad(loss)(1.0)


def exception_in_a_loop_half_way(world):
    def body(c, _):
        touch(world)
        raise ZeroDivisionError("half-way through weight")

    sg.jit(lambda: jax.lax.scan(body, 0.0, None, length=2))()


def python_branch_on_a_traced_value(world):
    def f(x):
        touch(world)
        return x if x > 0 else -x

    sg.jit(f)(1.0)


def argnums_by_place(world):
    sg.grad(lambda x, y: x * y, 1)(2.0, 3.0)


def no_budget(residuals, transform=sg.grad):
    return lambda world: transform(lambda x: x**2, residuals=residuals)(1.0)


CASES: list[tuple[Callable, type[BaseException], str]] = [
    (non_scalar_loss, sg.GradientError, r"loss that loss returns must be a scalar, not f32\[2\]"),
    (loss_is_a_pair, sg.GradientError, r"must be a scalar, not \(f32\[\], f32\[\]\).*has_aux"),
    (loss_is_integer, sg.GradientError, r"must be a real floating-point number, not i32\[\]"),
    (loss_is_none, sg.GradientError, r"must be a scalar, not nothing"),
    (aux_missing, sg.GradientError, r"has_aux=True, .* must return a pair"),
    (aux_of_three, sg.GradientError, r"has_aux=True, .* must return a pair"),
    (integer_state, sg.GradientError, r"the State 'count' is i32\[\]"),
    (integer_argument, sg.GradientError, r"argument 'k' is i32\[\]"),
    (unknown_state, sg.GradientError, r"State 'other', but lambda does not use it"),
    (write_only_state, sg.GradientError, r"State 'other', which loss writes before it reads it"),
    (argnums_by_place, sg.GradientError, r"grad_states holds 1 of type int.*numbers go to argnums="),
    (no_budget(-1), sg.GradientError, r"residuals is -1 .*expected so many bytes"),
    (no_budget(True), sg.GradientError, r"residuals is True .*expected so many bytes"),
    (no_budget(2.0), sg.GradientError, r"residuals is 2.0 .*or as a float from 0.0 to 1.0"),
    (no_budget("x"), sg.GradientError, r"residuals is 'x' .*expected so many bytes"),
    (no_budget(-1, sg.hessian), sg.GradientError, r"residuals is -1 .*expected so many bytes"),
    (no_budget(-1, sg.vector_grad), sg.GradientError, r"residuals is -1 .*expected so many bytes"),
    (not_a_state, sg.GradientError, r"grad_states holds 3.0 of type float; expected a State"),
    (argnums_out_of_range, sg.GradientError, r"argnums names argument 2 of lambda, which was called with 1"),
    (argnums_twice, sg.GradientError, r"names an argument twice: \(0, -2\)"),
    (argnums_no_integer, sg.GradientError, r"must be integers, not 'x'"),
    (
        structure_changes_in_a_loop,
        sg.StateError,
        rf"'weight' changes its type inside a loop.*{THIS_FILE}:\d+",
    ),
    (
        shape_changes_in_a_loop,
        sg.StateError,
        r"'weight' changes its type .*float32\[2\] and is given float32\[4\]",
    ),
    (
        dtype_changes_in_a_branch,
        sg.StateError,
        r"'count' changes its type .*int32\[\] and is given float32\[\]",
    ),
    (state_as_argument, sg.StategradError, r"State 'weight'.*`\.value`"),
    (state_as_gradient_argument, sg.StategradError, r"argument 's'.* is the State 'weight'"),
    (state_as_result, sg.TraceError, r"result .* is the State 'weight'"),
    (string_as_argument, sg.StategradError, r"'mode'.*'train'.*static_argnames"),
    (string_as_result, sg.TraceError, r"\['mode'\].*'train' of type str"),
    (unhashable_static, sg.TraceError, r"static argument number 1 is \[1, 2\]"),
    (unknown_static_name, sg.TraceError, r"static_argnames names 'mode'"),
    (static_and_differentiated, sg.GradientError, r"argument 1 of lambda, which is static"),
    (write_under_raw_jit, sg.StateError, rf"'weight'.*raw jax\.jit.*{THIS_FILE}:\d+.*stategrad\.jit"),
    (read_under_raw_jit, sg.StateError, r"'weight'.*raw jax\.jit.*stategrad\.jit"),
    (write_under_raw_grad, sg.StateError, r"'weight' is written under jax\.grad"),
    (batched_write_under_raw_vmap, sg.StateError, r"batched value is written to the State 'other'"),
    (batched_write_under_our_jit, sg.StateError, r"batched value is written to the State 'other'"),
    (write_in_a_scan_under_raw_grad_in_ours, sg.StateError, r"'other'.*stategrad"),
    (state_holding_a_state, sg.StateError, r"'weight' is given another State"),
    (write_inside_a_custom_rule, sg.StateError, r"'other'.*custom_jvp"),
    (reverse_through_while, Exception, r"while.*(scan|fori_loop|bounded)"),
    (exception_half_way, ZeroDivisionError, r"half-way"),
    (exception_in_a_loop_half_way, ZeroDivisionError, r"half-way"),
    (python_branch_on_a_traced_value, jax.errors.TracerBoolConversionError, r"traced"),
]


@pytest.mark.parametrize(("bad", "error", "message"), CASES, ids=[c[0].__name__ for c in CASES])
def test_bad_call(bad, error, message, world):
    before = world.snapshot()
    with pytest.raises(error, match=f"(?s){message}"):
        bad(world)
    for held, expected in zip(world.snapshot(), before, strict=True):
        np.testing.assert_array_equal(held, expected)
    fine = sg.jit(lambda x: touch(world) or world.w.value.sum() * x)(1.0)
    assert fine == pytest.approx(6.0), "the States still work afterwards"


@pytest.fixture
def interruptible():
    """Interrupts raise, also where a shell has started us in the background, which ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_keyboard_interrupt_half_way(world):
    before = world.snapshot()

    def loss(x):
        touch(world)
        signal.raise_signal(signal.SIGINT)
        return x

    with pytest.raises(KeyboardInterrupt):
        sg.grad(loss)(1.0)
    with pytest.raises(KeyboardInterrupt):
        sg.jit(loss)(1.0)
    for held, expected in zip(world.snapshot(), before, strict=True):
        np.testing.assert_array_equal(held, expected)
