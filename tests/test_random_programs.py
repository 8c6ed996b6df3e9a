"""Random stateful programs: meaning, threading, derivatives of every order, text. Each is reproduced by its
seed.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategrad.ir import evaluate, parse
from stategrad.passes import gradient_function
from tests import program_checks as checks
from tests.fuzz import candidate, failure
from tests.random_programs import Program, random_program
from tests.reference import run
from tests.shrink import shrink


def seeds(count: int, shard: int) -> list:
    """Ranges of seeds, a test each, so that several processes share them."""
    starts = range(0, count, shard)
    shards = [range(i, min(i + shard, count)) for i in starts]
    return [pytest.param(each, id=f"{each.start}-{each.stop - 1}") for each in shards]


def each(of: range, check, **options) -> None:
    for seed in of:
        try:
            check(random_program(seed), **options)
        except Exception as e:
            e.add_note(f"seed {seed}; to see it shrunk: tools/fuzz 1 --seed {seed}")
            raise


@pytest.mark.parametrize("some", seeds(500, 25))
def test_derivatives(some):
    for check in (checks.threading, checks.gradient, checks.tangents, checks.inner_product):
        each(some, check)


@pytest.mark.parametrize("some", seeds(120, 30))
def test_forward_mode_through_unbounded_loops(some):
    for seed in some:
        program = random_program(seed, unbounded=True)
        checks.threading(program)
        checks.tangents(program)


@pytest.mark.parametrize("some", seeds(200, 50))
def test_what_nobody_wants_is_left_out(some):
    each(some, checks.some_wanted)


@pytest.mark.parametrize("some", seeds(200, 100))
def test_an_unbounded_loop_is_in_the_way_of_what_needs_it_only(some):
    reached = [checks.some_wanted(random_program(seed, unbounded=True)) for seed in some]
    assert 0 < sum(reached) < len(reached)


@pytest.mark.parametrize("some", seeds(60, 15))
def test_every_pass_makes_well_formed_programs(some):
    each(some, checks.well_formed)


@pytest.mark.parametrize("some", seeds(100, 25))
def test_second_order(some):
    each(some, checks.higher_orders, orders=2)


@pytest.mark.parametrize("some", seeds(24, 8))
def test_third_order(some):
    each(some, checks.higher_orders, orders=3, tolerance=1e-9)


@pytest.mark.parametrize("some", seeds(60, 30))
def test_in_single_precision(some):
    for seed in some:
        program = random_program(seed, "f32")
        for check in (checks.threading, checks.gradient, checks.tangents):
            check(program, tolerance=1e-5)


@pytest.mark.parametrize("some", seeds(24, 6))
def test_gradients_are_those_of_jax(some):
    with jax.enable_x64(True):
        each(some, _as_jax)


def _as_jax(program: Program) -> None:
    inputs, main = checks.Inputs(program), program.main

    def loss(args, cells):
        operands, state = list(map(jnp.asarray, inputs.args)), dict(inputs.cells)
        for i, x in zip(program.args, args, strict=True):
            operands[i] = x
        state.update(zip(program.wrt, cells, strict=True))
        results, final = run(main, operands, state, jnp)
        paired = [*zip(results, inputs.cts, strict=True)]
        paired += [(final[c], ct) for c, ct in zip(program.final, inputs.final, strict=True)]
        return sum(jnp.sum(x * ct) for x, ct in paired)

    at = [inputs.args[i] for i in program.args], [inputs.cells[c] for c in program.wrt]
    by_args, by_cells = jax.grad(loss, (0, 1))(*at)
    made = gradient_function(main, program.args, program.wrt, None, program.final)
    found, _ = evaluate(made, [*inputs.args, *inputs.cts, *inputs.final], inputs.cells)
    checks.close("as jax", found[len(main.results) :], [*by_args, *by_cells], 1e-10)


@pytest.mark.parametrize("some", seeds(120, 30))
def test_batching_is_a_loop(some):
    each(some, checks.batching)


@pytest.mark.parametrize("some", seeds(120, 30))
def test_batching_unbounded_loops_is_a_loop(some):
    for seed in some:
        checks.batching(random_program(seed, unbounded=True))


@pytest.mark.parametrize("some", seeds(60, 15))
def test_batching_gradients_is_a_loop(some):
    each(some, _batched_gradient)


def _batched_gradient(program: Program) -> None:
    made = gradient_function(program.main, program.args, program.wrt, None, program.final)
    checks.batching(program, made)


# ---------------------------------------------------------------------------------------------- the tools
def test_programs_come_back_from_their_seed():
    first, again = random_program(11), random_program(11)
    assert candidate(first) == candidate(again)
    assert np.array_equal(checks.Inputs(first).args[0], checks.Inputs(again).args[0])


def test_a_failure_is_shrunk_to_what_matters():
    def fails(p: Program) -> bool:
        return any(op.name == "accumulate" for op in p.main.body.operations)

    small = shrink(next(p for p in map(random_program, range(20)) if fails(p)), fails)
    assert [op.name for op in small.main.body.operations if op.name != "constant"] == ["accumulate"]
    assert parse(candidate(replace(small, args=(0,)))).functions.keys() == {"main"}
    assert failure(small) == ""
