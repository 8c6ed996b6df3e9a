"""What backward loops keep, compute again, and add up afterwards: the same numbers, effects once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.ir import Builder, Function, Module, Row, Type, Value, evaluate, parse, verify, walk
from stategrad.ir.opdef import ROWS
from stategrad.passes import (
    canonicalise_function,
    distribute_loops_function,
    gradient_function,
    hold_remats_function,
    loop_layouts_function,
    narrow_products_function,
    parse_pipeline,
    residuals_function,
    shape_loops_function,
    simplify_function,
    thread_function,
)
from tests import program_checks as checks
from tests.random_programs import random_inputs, random_program

STEPS, BATCH, WIDTH = 24, 3, 4


def scans(function: Function) -> list:
    return [op for op in walk(function.body) if op.name == "scan"]


def stacked_bytes(function: Function) -> int:
    """What the loops of a program stack."""
    stacks = [v for op in scans(function) for v in op.results[op.attributes["carry"] :]]
    return sum(v.type.size * v.type.dtype.numpy.itemsize for v in stacks)


# ------------------------------------------------------------------------------------------------------ rows
SUMMED = [row for row in ROWS.values() if isinstance(row, Row) and row.summed is not None]


@pytest.mark.parametrize("row", SUMMED, ids=lambda row: row.name)
def test_the_sum_over_a_leading_axis_is_the_sum_of_the_results(row):
    for sample in row.samples:
        inner, outer = Builder(), Builder()
        inner.emit(row, [inner.param(t) for t in sample.types], sample.attributes)
        params = [outer.param(t.batched(3)) for t in sample.types]
        function = outer.function("f", params, [row.summed(outer, inner.operations[0], params)])
        args = random_inputs([v.type for v in params], 1)
        (found,), _ = evaluate(function, args)
        parts = [row.evaluate(*(x[i] for x in args), **sample.attributes) for i in range(3)]
        expected = np.sum([np.asarray(part, "f8") for part in parts], axis=0)
        np.testing.assert_allclose(np.asarray(found, "f8"), expected, rtol=3e-2, atol=3e-2)


def test_a_product_costs_what_it_multiplies_and_a_loop_what_its_steps_do():
    x, w = Value(Type.parse("f32[8,16]")), Value(Type.parse("f32[16,4]"))
    b = Builder()
    plain = {"batch": ((), ()), "precision": ("default", "default"), "to": x.type.dtype}
    b.dot(x, w, contract=((1,), (0,)), **plain)
    assert b.operations[0].opdef.cost_of(b.operations[0]) == 2 * 8 * 16 * 4
    program = sg.grad(lstm).trace(parameters(), XS).program
    for op in scans(program):
        body = sum(o.opdef.cost_of(o) for o in op.regions[0].operations)
        assert op.opdef.cost_of(op) == op.attributes["length"] * body


# ------------------------------------------------------------------------------------------ random programs
PASSES = {
    "residuals": residuals_function,
    "least": lambda f: residuals_function(f, 0),
    "less": lambda f: residuals_function(f, 100),
    "half": lambda f: residuals_function(f, 0.5),
    "most": lambda f: residuals_function(f, 1.0),
    "blocks": lambda f: distribute_loops_function(f, 2),
    "layouts": loop_layouts_function,
    "products": narrow_products_function,
    "remats": hold_remats_function,
    "all": shape_loops_function,
    "least and blocks": lambda f: distribute_loops_function(simplify_function(residuals_function(f, 0)), 2),
}


@pytest.mark.parametrize("start", range(0, 120, 30))
def test_random_gradients_stay_the_same(start):
    for seed in range(start, start + 30):
        program = random_program(seed)
        made = gradient_function(program.main, program.args, program.wrt, None, program.final)
        pure = simplify_function(thread_function(made).function)
        args = random_inputs([v.type for v in pure.params], seed)
        expected, _ = evaluate(pure, args)
        for name, transform in PASSES.items():
            shaped = transform(pure)
            verify(Module.of([shaped]))
            found, _ = evaluate(shaped, args)
            checks.close(f"seed {seed}, {name}", found, expected, 1e-11)


def test_random_programs_with_effects_stay_the_same():
    for seed in range(60):
        program = random_program(seed)
        inputs = checks.Inputs(program)
        made = gradient_function(program.main, program.args, program.wrt, None, program.final)
        operands = [*inputs.args, *inputs.cts, *inputs.final]
        expected, cells = evaluate(made, operands, inputs.cells)
        for transform in (lambda f: residuals_function(f, 0), lambda f: distribute_loops_function(f, 2)):
            found, after = evaluate(transform(made), operands, inputs.cells)
            checks.close(f"seed {seed}: results", found, expected, 1e-11)
            checks.close(f"seed {seed}: states", *[checks.select(program.cells, c) for c in (after, cells)])


# -------------------------------------------------------------------------------------------------- a network
def parameters() -> dict[str, jax.Array]:
    keys = jax.random.split(jax.random.key(0), 2)
    shape = (2 * WIDTH, 4 * WIDTH)
    return {"w": jax.random.normal(keys[0], shape) / WIDTH, "b": jax.random.normal(keys[1], shape[1:])}


XS = jax.random.normal(jax.random.key(1), (STEPS, BATCH, WIDTH))


def lstm(p, xs):
    def cell(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(jnp.concatenate([x, h], axis=-1) @ p["w"] + p["b"], 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros(xs.shape[1:])
    (h, _), hs = jax.lax.scan(cell, (zero, zero), xs)
    return jnp.mean(h**2) + jnp.mean(hs**3)


@pytest.mark.parametrize("budget", [None, 0, 0.5, 1.0, 5_000])
def test_the_gradient_is_that_of_jax_for_every_budget(budget):
    found = sg.grad(lstm, argnums=(0, 1), residuals=budget)(parameters(), XS)
    expected = jax.grad(lstm, argnums=(0, 1))(parameters(), XS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), found, expected)


def test_a_budget_is_kept():
    # Products of 256 numbers are not for nothing: what is kept depends on what it may take.
    p, xs = {"w": jnp.ones((256, 512)), "b": jnp.ones(512)}, jnp.ones((STEPS, 2, 128))
    whole = list(sg.make_ir(lstm)(p, xs).functions.values())[-1]
    made = gradient_function(canonicalise_function(whole), (0, 1), unit=True)
    pure = simplify_function(thread_function(made).function)
    kept = [stacked_bytes(simplify_function(residuals_function(pure, r))) for r in (1.0, 0.5, 0)]
    assert kept[2] <= 3 * xs.nbytes  # h is a result of the loop; h and c entering a step are kept
    assert kept[2] < kept[1] <= kept[0] < stacked_bytes(pure)


def test_memory_falls_with_the_budget():
    p = parameters()
    sizes = [
        sg.grad(lstm, residuals=r).lower(p, XS).compile().memory_analysis().temp_size_in_bytes
        for r in (1.0, 0)
    ]
    assert sizes[1] < sizes[0]


def test_second_order_through_distributed_loops():
    p = parameters()
    loss = lambda w: lstm({**p, "w": w}, XS)  # noqa: E731
    direction = jnp.cos(p["w"] * 7)
    along = lambda grad: lambda w: jnp.vdot(grad(w), direction)  # noqa: E731
    found = sg.grad(along(sg.grad(loss)))(p["w"])
    explicit = sg.grad(along(sg.grad(loss, residuals=0)))(p["w"])
    expected = jax.grad(along(jax.grad(loss)))(p["w"])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)
    np.testing.assert_allclose(explicit, expected, rtol=2e-3, atol=1e-6)


def test_inside_jit_and_around_states():
    p, calls = parameters(), sg.State(0)

    @sg.jit
    def step(p, xs):
        def loss(p):
            calls.value += 1
            return lstm(p, xs)

        return sg.grad(loss)(p)

    found, expected = step(p, XS), jax.grad(lstm)(p, XS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6), found, expected)
    assert calls.value == 1


def test_effects_in_the_loop_happen_once():
    p, seen = parameters()["w"][:WIDTH, :WIDTH], sg.State(jnp.zeros((BATCH, WIDTH)))

    def loss(w):
        def body(h, x):
            h = jnp.tanh(h @ w + x)
            seen.value = seen.value + h
            return h, None

        return jnp.sum(jax.lax.scan(body, jnp.zeros((BATCH, WIDTH)), XS)[0] ** 2) + jnp.sum(seen.value)

    def pure(w):
        def body(carry, x):
            h, s = carry
            h = jnp.tanh(h @ w + x)
            return (h, s + h), None

        zero = jnp.zeros((BATCH, WIDTH))
        h, s = jax.lax.scan(body, (zero, zero), XS)[0]
        return jnp.sum(h**2) + jnp.sum(s), s

    expected, s = jax.grad(pure, has_aux=True)(p)
    np.testing.assert_allclose(sg.grad(loss, residuals=0)(p), expected, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(seen.value, s, rtol=1e-5)


# ----------------------------------------------------------------------------------------------- what is kept
def test_what_no_step_changes_is_never_stacked():
    def loss(w, xs):
        def body(h, x):
            scale = jnp.exp(w).sum(0)  # the same in each step
            return jnp.tanh(h * scale * 2.0 + x), None

        return jnp.sum(jax.lax.scan(body, jnp.ones(WIDTH), xs)[0])

    w, xs = jnp.ones((WIDTH, WIDTH)) / 9, XS[:, 0]
    for budget in (None, 0, 1.0):
        program = sg.grad(loss, residuals=budget).trace(w, xs).program
        forward = scans(program)[0]
        stacked = forward.results[forward.attributes["carry"] :]
        changing = set(forward.regions[0].params[: forward.attributes["carry"]])
        for op in forward.regions[0].operations:
            if not changing.isdisjoint(op.operands):
                changing.update(op.results)
        assert stacked
        assert changing.issuperset(forward.regions[0].results)


def test_a_program_without_loops_stays_the_same_object():
    function = sg.grad(lambda x: jnp.sum(jnp.sin(x))).trace(jnp.ones(3)).program
    assert shape_loops_function(function) is function


def test_a_shaped_program_stays_as_it_is():
    program = sg.grad(lstm).trace(parameters(), XS).program
    assert residuals_function(program) is program
    assert distribute_loops_function(program) is program
    assert loop_layouts_function(program) is program


def test_a_prime_number_of_steps_is_left_whole():
    program = sg.grad(lstm).trace(parameters(), XS[:23]).program
    assert {op.attributes["length"] for op in scans(program)} == {23}


def test_options_print_and_parse_back():
    for text in (
        "residuals",
        "residuals{budget = 0}",
        "residuals{budget = 0.5}",
        "distribute-loops{block = 8}",
    ):
        assert str(parse_pipeline(text)) == text


def test_a_random_draw_that_is_computed_again_is_the_same_draw():
    def loss(w, key):
        def body(h, k):
            keep = jax.random.bernoulli(k, 0.5, h.shape)
            return jnp.where(keep, jnp.tanh(h @ w), h), None

        return jnp.sum(jax.lax.scan(body, jnp.ones((BATCH, WIDTH)), jax.random.split(key, STEPS))[0] ** 2)

    w = jax.random.normal(jax.random.key(3), (WIDTH, WIDTH))
    expected = jax.grad(loss)(w, jax.random.key(4))
    found = sg.grad(loss, residuals=0)(w, jax.random.key(4))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("budget", [None, 0])
def test_the_gradient_by_the_carry_alone_is_not_multiplied_with_the_inputs_weights(budget):
    program = sg.grad(lstm, residuals=budget).trace(parameters(), XS).program
    backward = scans(program)[-1]
    products = [op for op in walk(backward.regions[0]) if op.name == "dot"]
    assert (BATCH, WIDTH) in [op.result.type.shape for op in products]
    assert not any(
        op.name == "slice" and op.operands[0] in {p.result for p in products}
        for op in backward.regions[0].operations
    )


@pytest.mark.parametrize("spec", ["bmk,bkn->bmn", "bkm,bkn->bmn", "mkb,bnk->bmn", "kbm,nkb->bmn"])
def test_a_product_of_which_slices_are_used_is_narrowed(spec):
    sizes = dict(zip("bmkn", (3, 5, 4, 7), strict=True))
    types = [Type.parse(f"f32[{','.join(str(sizes[a]) for a in term)}]") for term in spec[:-5].split(",")]
    b = Builder()
    x, y = map(b.param, types)
    axes = [[term.index(a) for term in spec[:-5].split(",")] for a in "kb"]
    pairs = [tuple((axis,) for axis in pair) for pair in axes]
    plain = {"precision": ("default", "default"), "to": x.type.dtype}
    product = b.dot(x, y, contract=pairs[0], batch=pairs[1], **plain)
    parts = [((0, 1, 2), (2, 4, 6), (1, 1, 2)), ((0, 2, 3), (1, 4, 4), (1, 2, 1))]
    slices = [b.slice(product, start=start, limit=limit, strides=by) for start, limit, by in parts]
    function = b.function("f", [x, y], slices)
    narrowed = narrow_products_function(function)
    (made,) = [op for op in narrowed.body.operations if op.name == "dot"]
    assert made.result.type.shape == (2, 3, 4)
    args = random_inputs(types, 3)
    for found, expected in zip(evaluate(narrowed, args)[0], evaluate(function, args)[0], strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_product_that_is_used_as_a_whole_stays():
    b = Builder()
    x, y = b.param(Type.parse("f32[2,3]")), b.param(Type.parse("f32[3,4]"))
    plain = {"batch": ((), ()), "precision": ("default", "default"), "to": x.type.dtype}
    product = b.dot(x, y, contract=((1,), (0,)), **plain)
    part = b.slice(product, start=(0, 0), limit=(1, 4), strides=(1, 1))
    other = b.slice(product, start=(1, 0), limit=(2, 4), strides=(1, 1))
    for results in ([part, product], [part, other]):
        function = b.function("f", [x, y], results)
        assert narrow_products_function(function) is function


def test_sums_of_parts_between_zeros_are_put_together():
    text = """
func @f(%x: f32[2], %y: f32[3], %z: f32[1]) -> (f32[6]) {
  %o: f32[] = constant {value = 0.0}
  %a: f32[6] = pad %x, %o {high = [4], interior = [0], low = [0]}
  %b: f32[6] = pad %y, %o {high = [1], interior = [0], low = [2]}
  %c: f32[6] = pad %z, %o {high = [0], interior = [0], low = [5]}
  %d: f32[6] = add %c, %b
  %e: f32[6] = add %d, %a
  return %e
}
"""
    module = parse(text)
    (folded,) = parse_pipeline("fold, dce").run(module).functions.values()
    assert [op.name for op in folded.body.operations] == ["concatenate"]
    args = [np.array([1, 2], "f"), np.array([3, 4, 5], "f"), np.array([6], "f")]
    np.testing.assert_array_equal(evaluate(folded, args)[0][0], np.arange(1, 7, dtype="f"))
