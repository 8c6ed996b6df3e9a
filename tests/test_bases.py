"""Bases pushed through programs: what is sparse stays sparse, and the numbers are right."""

import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.ir import evaluate, walk
from stategrad.passes import canonicalise_function, jacobian_function, jvp_function, simplify_function

from .jacobian_functions import W, array, batched_layer, tanh_layer
from .program_checks import Inputs, close, select
from .random_programs import random_program


def test_random_programs():
    """Against one tangent at a time, effects, loops, branches and calls included."""
    for seed in range(25):
        program = random_program(seed)
        main = canonicalise_function(program.main) if seed % 2 else program.main
        inputs, n = Inputs(program), len(main.results)
        expected = _by_tangents(main, program.args, program.wrt, inputs)
        results, final = evaluate(main, inputs.args, inputs.cells)
        for mode in ("reverse", "forward"):
            made = simplify_function(jacobian_function(main, program.args, program.wrt, mode=mode))
            found, state = evaluate(made, inputs.args, inputs.cells)
            close(f"seed {seed} {mode}: results", found[:n], results)
            close(f"seed {seed} {mode}: Jacobian", found[n:], expected, 1e-10)
            close(f"seed {seed} {mode}: states", select(program.cells, state), select(program.cells, final))


def _by_tangents(main, args, cells, inputs):
    made, n = jvp_function(main, args, cells), len(main.results)
    given = [*(inputs.args[i] for i in args), *(inputs.cells[c] for c in cells)]
    real = [v.type.shape for v in main.results if v.type.differentiable]
    blocks = [[np.zeros(shape + x.shape) for x in given] for shape in real]
    for k, x in enumerate(given):
        for index in np.ndindex(x.shape):
            seeds = [np.zeros_like(y) for y in given]
            seeds[k][index] = 1
            tangents = evaluate(made, [*inputs.args, *seeds], inputs.cells)[0][n:]
            for row, tangent in zip(blocks, tangents, strict=True):
                row[k][(..., *index)] = tangent
    return [block for row in blocks for block in row]


# ------------------------------------------------------------------------------------------------ bases
def program_of(transform, fn, *args):
    return transform(fn).trace(*args).program


def largest(function):
    return max(v.type.size for op in walk(function.body) for v in op.results)


@pytest.mark.parametrize("transform", [sg.jacrev, sg.jacfwd])
def test_a_layer_needs_no_product_of_matrices(transform):
    program = program_of(transform, tanh_layer, array(3))
    products = [op for op in walk(program.body) if op.name == "dot"]
    assert [op.result.type.shape for op in products] == [(4,)]
    assert largest(program) == W.size


@pytest.mark.parametrize("transform", [sg.jacrev, sg.jacfwd])
def test_an_elementwise_function_gives_a_diagonal(transform):
    def fn(x):
        x = jnp.where(x > 0, jnp.sin(x), x * 2)
        return (x.reshape(2, 3).T * 3 + jnp.ones((3, 2))).T.reshape(-1)

    program = program_of(transform, fn, array(6))
    big = [op for op in walk(program.body) if any(v.type.size == 36 for v in op.results)]
    assert {op.name for op in big} <= {"broadcast", "iota", "eq", "select", "constant"}
    assert largest(program) == 36


def test_examples_of_a_batch_stay_apart():
    """The derivatives of one example by another are zeros, written at the end only."""
    program = program_of(sg.jacrev, batched_layer, array(5, 3))
    before = [v for op in walk(program.body) for v in op.results if v.type.size > 5 * 4 * 3]
    assert {v.type.shape for v in before} == {(5, 4, 5, 3)}


def test_the_basis_of_one_input_computes_nothing_of_the_others():
    program = program_of(sg.jacfwd, lambda x, w: jnp.tanh(w @ x), array(3), W)
    assert sum(op.name == "tanh" for op in walk(program.body)) == 1
    assert sum(op.name == "dot" for op in walk(program.body)) == 1
