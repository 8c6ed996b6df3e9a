"""Residuals outside of loops: the same gradients, effects once, less memory where a budget asks for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.backend import compile_function
from stategrad.ir import Function, Module, evaluate, parse, verify, walk
from stategrad.passes import (
    gradient_function,
    parse_pipeline,
    residuals_function,
    simplify_function,
    thread_function,
)
from tests import program_checks as checks
from tests.random_programs import random_inputs, random_program

LAYERS, WIDTH, BATCH = 6, 16, 8


def held(function: Function) -> list:
    return [op for op in walk(function.body) if op.name == "after"]


def layers(width: int = WIDTH, count: int = LAYERS) -> list:
    keys = jax.random.split(jax.random.key(0), count)
    return [
        {"up": jax.random.normal(k, (width, 4 * width)) / width**0.5, "down": jnp.eye(4 * width, width) / 2}
        for k in keys
    ]


def network(layers, x):
    for w in layers:
        x = x + jax.nn.gelu(x @ w["up"]) @ w["down"]
    return jnp.mean(x**2)


def inputs(width: int = WIDTH, batch: int = BATCH) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (batch, width))


def close(found, expected) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), found, expected)


# ------------------------------------------------------------------------------------------- the same numbers
@pytest.mark.parametrize("budget", [None, 0, 0.25, 0.5, 1.0, 10_000])
def test_the_gradient_is_that_of_jax_for_every_budget(budget):
    transform = sg.value_and_grad(network, argnums=(0, 1), residuals=budget)
    chosen = len(held(transform.trace(layers(), inputs()).program))
    assert (chosen > 0) == (budget not in (None, 1.0))
    expected = jax.value_and_grad(network, argnums=(0, 1))(layers(), inputs())
    close(transform(layers(), inputs()), expected)


def test_random_gradients_are_computed_again_in_part_and_stay_the_same():
    changed = 0
    for seed in range(60):
        program = random_program(seed)
        made = gradient_function(program.main, program.args, program.wrt, None, program.final)
        pure = simplify_function(thread_function(made).function)
        args = random_inputs([v.type for v in pure.params], seed)
        expected, _ = evaluate(pure, args)
        for budget in (0, 0.3, 200):
            less = residuals_function(pure, budget)
            changed += bool(held(less))
            verify(Module.of([less]))
            checks.close(f"seed {seed}, {budget}", evaluate(less, args)[0], expected, 1e-11)
    assert changed > 30


def test_derivatives_of_a_gradient_that_computes_again():
    w, x = layers(4, 2), inputs(4, 3)
    inner = lambda budget: lambda x: jnp.sum(jnp.sin(sg.grad(network, argnums=1, residuals=budget)(w, x)))  # noqa: E731
    expected = jax.grad(lambda x: jnp.sum(jnp.sin(jax.grad(network, argnums=1)(w, x))))(x)
    close(sg.grad(inner(0))(x), expected)
    close(sg.grad(inner(0), residuals=0)(x), expected)
    close(jax.grad(inner(0))(x), expected)


@pytest.mark.parametrize(
    ("transform", "reference"),
    [
        (sg.jacrev, jax.jacrev),
        (sg.vector_grad, lambda f: jax.grad(lambda x: jnp.sum(f(x)))),
        (sg.hessian, jax.hessian),
    ],
)
def test_other_derivatives_in_reverse_take_a_budget(transform, reference):
    w, x = layers(8, 4), inputs(8, 2)

    def fn(x):
        for layer in w:
            x = x + jax.nn.gelu(x @ layer["up"]) @ layer["down"]
        return jnp.mean(x**2, 1)

    less = transform(fn, residuals=0)
    assert held(less.trace(x).program)
    close(less(x), reference(fn)(x))


def test_a_mapped_gradient_that_computes_again():
    w, xs = layers(), jnp.stack([inputs(), 2 * inputs()])
    grad = sg.grad(network, argnums=1, residuals=0)
    expected = jax.vmap(jax.grad(network, argnums=1), (None, 0))(w, xs)
    close(sg.vmap(grad, in_axes=(None, 0))(w, xs), expected)
    close(jax.vmap(grad, (None, 0))(w, xs), expected)


def test_a_network_of_half_precision_with_masks_and_whole_numbers():
    def loss(w, x, labels):
        h = x.astype(jnp.bfloat16)
        for layer in w:
            h = jnp.where(h > 0, h, 0) + jax.nn.gelu(h @ layer["up"]) @ layer["down"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(h), labels[:, None], 1).astype("f4"))

    w = jax.tree.map(lambda a: a.astype(jnp.bfloat16), layers())
    labels = jnp.arange(BATCH) % WIDTH
    grad = sg.grad(loss, residuals=0)
    assert held(grad.trace(w, inputs(), labels).program)
    found, expected = grad(w, inputs(), labels), jax.grad(loss)(w, inputs(), labels)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a.astype("f4"), b.astype("f4"), rtol=0.1, atol=1e-3),
        found,
        expected,
    )


def test_a_random_draw_that_is_computed_again_is_the_same_draw():
    def loss(w, x, key):
        for layer, k in zip(w, jax.random.split(key, len(w)), strict=True):
            x = x + jax.nn.gelu(x @ layer["up"] * jax.random.uniform(k, (4 * WIDTH,))) @ layer["down"]
        return jnp.mean(x**2)

    grad = sg.grad(loss, residuals=0)
    assert held(grad.trace(layers(), inputs(), jax.random.key(2)).program)
    expected = jax.grad(loss)(layers(), inputs(), jax.random.key(2))
    close(grad(layers(), inputs(), jax.random.key(2)), expected)


def test_a_random_state_is_advanced_once():
    def loss(w, x, state):
        for layer in w:
            x = x + jax.nn.gelu(x @ layer["up"] * state.uniform(0, 1, (4 * WIDTH,))) @ layer["down"]
        return jnp.mean(x**2)

    states = sg.random.RandomState(3), sg.random.RandomState(3)
    grads = [
        sg.grad(lambda w, s=s: loss(w, inputs(), s), residuals=r)
        for s, r in zip(states, (0, None), strict=True)
    ]
    assert held(grads[0].trace(layers()).program)
    for _ in range(2):
        close(grads[0](layers()), grads[1](layers()))


def test_a_key_can_wait():
    text = """
func @f(%k: key<fry>[2], %x: f32[3]) -> (key<fry>[2]) {
  %a: key<fry>[2] = after %k, %x
  return %a
}
"""
    (function,) = parse(text).functions.values()
    keys = jax.random.split(jax.random.key(7))
    (found,) = compile_function(function)(keys, jnp.full(3, jnp.nan))
    np.testing.assert_array_equal(jax.random.key_data(found), jax.random.key_data(keys))


def test_waiting_changes_no_bit():
    text = """
func @f(%x: f32[6], %n: i32[2], %t: f32[2]) -> (f32[6], i32[2]) {
  %a: f32[6] = after %x, %t
  %b: i32[2] = after %n, %t
  return %a, %b
}
"""
    (function,) = parse(text).functions.values()
    x, n = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42], "f"), np.array([-1, 2**31 - 1], "i4")
    for t in (0.0, -0.0, 1.0, -1.0, np.nan, -np.inf):
        found = compile_function(function)(jnp.asarray(x), jnp.asarray(n), jnp.full(2, t, "f"))
        assert [np.asarray(a).tobytes() for a in found] == [x.tobytes(), n.tobytes()]


# ---------------------------------------------------------------------------------------------------- effects
def test_effects_happen_once():
    seen, calls = [], sg.State(0)

    def loss(w, x):
        for layer in w:
            calls.value = calls.value + 1
            jax.debug.callback(lambda m: seen.append(float(m)), jnp.mean(x))
            x = x + jax.nn.gelu(x @ layer["up"]) @ layer["down"]
        return jnp.mean(x**2)

    grad = sg.grad(loss, residuals=0)
    assert held(grad.trace(layers(), inputs()).program)
    close(grad(layers(), inputs()), jax.grad(network)(layers(), inputs()))
    jax.effects_barrier()
    assert (len(seen), calls.value) == (LAYERS, LAYERS)


# ----------------------------------------------------------------------------------------------------- memory
def temporary(transform, *args) -> int:
    return transform.lower(*args).compile().memory_analysis().temp_size_in_bytes


def test_memory_falls_with_the_budget():
    arguments = layers(64, 12), inputs(64, 128)
    whole, half, least = (temporary(sg.grad(network, residuals=r), *arguments) for r in (None, 0.5, 0))
    assert half < 0.7 * whole
    assert least < 0.25 * whole


def test_memory_falls_inside_jit_too():
    arguments = layers(64, 12), inputs(64, 128)
    whole, least = (temporary(sg.jit(sg.grad(network, residuals=r)), *arguments) for r in (None, 0))
    assert least < 0.25 * whole


def test_memory_falls_for_layers_that_are_functions():
    layer = jax.jit(lambda x, w: x + jax.nn.gelu(x @ w["up"]) @ w["down"])

    def loss(layers, x):
        for w in layers:
            x = layer(x, w)
        return jnp.mean(x**2)

    arguments = layers(64, 12), inputs(64, 128)
    whole, least = (temporary(sg.grad(loss, residuals=r), *arguments) for r in (None, 0))
    assert least < 0.45 * whole
    close(sg.grad(loss, residuals=0)(*arguments), jax.grad(loss)(*arguments))


@pytest.mark.parametrize("checkpoint", [jax.checkpoint, sg.checkpoint])
def test_checkpoints_save_memory(checkpoint):
    layer = checkpoint(lambda w, x: x + jax.nn.gelu(x @ w["up"]) @ w["down"])

    def loss(layers, x):
        for w in layers:
            x = layer(w, x)
        return jnp.mean(x**2)

    w, x = layers(64, 12), inputs(64, 128)
    whole, less = (temporary(sg.grad(f), w, x) for f in (network, loss))
    assert less < 0.25 * whole
    close(sg.grad(loss)(w, x), jax.grad(network)(w, x))
    again = lambda grad: grad(lambda x: jnp.sum(grad(loss, argnums=1)(w, x) ** 2))(x)  # noqa: E731
    close(again(sg.grad), again(jax.grad))


# --------------------------------------------------------------------------------------------- what is chosen
def test_elementwise_chains_come_before_products():
    """With a budget that the products alone keep to, none of them is computed again."""
    program = sg.grad(network, residuals=0.6).trace(layers(64), inputs(64, 128)).program
    dear = sum(op.name == "dot" for op in program.body.operations)
    whole = sg.grad(network).trace(layers(64), inputs(64, 128)).program
    assert held(program)
    assert dear == sum(op.name == "dot" for op in whole.body.operations)


def test_a_budget_is_kept_where_it_can_be():
    whole = sg.grad(network).trace(layers(), inputs()).program
    assert residuals_function(whole, 10**9) is whole
    assert residuals_function(whole, 1.0) is whole


def test_a_chosen_program_stays_as_it_is():
    program = sg.grad(network, residuals=0).trace(layers(), inputs()).program
    assert residuals_function(program, 0) is program


def test_a_program_that_keeps_nothing_stays_the_same_object():
    for loss in (jnp.sum, lambda x: jnp.sum(3 * x), lambda x: jnp.float32(1.0)):
        program = sg.grad(loss).trace(inputs()).program
        assert residuals_function(program, 0) is program


def test_options_of_the_pass_apply_to_what_no_other_calls():
    function = sg.grad(network).trace(layers(), inputs()).program
    (made,) = parse_pipeline("residuals{budget = 0}").run(Module.of([function])).functions.values()
    assert held(made)
