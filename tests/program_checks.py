"""What must hold for every program, however it was drawn. A failed check is an AssertionError that names the
law.
"""

from collections.abc import Callable, Sequence

import numpy as np

from stategrad.ir import Cell, DerivativeError, Function, Module, evaluate, parse, to_text, verify
from stategrad.passes import (
    Fresh,
    Transposed,
    batch_function,
    gradient_function,
    jvp_function,
    linearize_function,
    thread_function,
    transpose_function,
)

from .random_programs import Program, random_inputs
from .reference import directional, run

Arrays = Sequence[np.ndarray]


class Inputs:
    """Arrays for a program: arguments, cells, directions, cotangents."""

    def __init__(self, program: Program) -> None:
        main, seed = program.main, program.seed
        self.args = random_inputs([v.type for v in main.params], seed)
        self.cells = dict(
            zip(program.cells, random_inputs([c.type for c in program.cells], seed + 1), strict=True)
        )
        self.d_args = random_inputs([main.params[i].type for i in program.args], seed + 2)
        self.d_cells = random_inputs([c.type for c in program.wrt], seed + 3)
        self.cts = random_inputs([v.type for v in main.results], seed + 4)
        self.final = random_inputs([c.type for c in program.final], seed + 5)

    def directions(self, program: Program) -> tuple[dict[int, np.ndarray], dict[Cell, np.ndarray]]:
        return dict(zip(program.args, self.d_args, strict=True)), dict(
            zip(program.wrt, self.d_cells, strict=True)
        )


def close(what: str, found: Arrays, expected: Arrays, tolerance: float = 1e-12) -> None:
    """Raises AssertionError unless the arrays agree."""
    assert len(found) == len(expected), f"{what}: {len(found)} arrays, expected {len(expected)}"
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        x, y = np.asarray(x), np.asarray(y)
        scale = tolerance * max(1.0, float(np.max(np.abs(y), initial=0)))
        assert x.shape == y.shape, f"{what}: array {i} has the shape {x.shape}, expected {y.shape}"
        assert np.allclose(x, y, rtol=tolerance, atol=scale), f"{what}: array {i} is\n{x}\nexpected\n{y}"


def dot(xs: Arrays, ys: Arrays) -> np.ndarray:
    """The inner product of two lists of arrays."""
    return sum((np.sum(x * y) for x, y in zip(xs, ys, strict=True)), np.float64(0))


def select(cells: Sequence[Cell], held: dict[Cell, np.ndarray]) -> list[np.ndarray]:
    """What these cells hold."""
    return [held[c] for c in cells]


# ------------------------------------------------------------------------------------------------ the checks
def threading(program: Program, tolerance: float = 1e-12) -> None:
    """The stateful program, its pure twin and the second meaning agree on results and final states."""
    inputs = Inputs(program)
    results, final = evaluate(program.main, inputs.args, inputs.cells)
    again, state = run(program.main, inputs.args, inputs.cells)
    close("evaluate: results", results, again, tolerance)
    close("evaluate: states", select(program.cells, final), select(program.cells, state), tolerance)
    _same_threaded("thread", program.main, inputs.args, inputs.cells, results, final, tolerance)


def _same_threaded(
    what: str,
    function: Function,
    args: Arrays,
    cells: dict[Cell, np.ndarray],
    results: Arrays,
    final: dict[Cell, np.ndarray],
    tolerance: float,
) -> None:
    made = thread_function(function)
    assert not made.function.effects, f"{what}: effects are left"
    found, _ = evaluate(made.function, [*select(made.inputs, cells), *args])
    n = len(results)
    close(f"{what}: results", found[:n], results, tolerance)
    close(f"{what}: states", found[n:], select(made.outputs, final), tolerance)


def gradient(program: Program, tolerance: float = 1e-12) -> None:
    """The gradient along a direction is the derivative along it; nothing else changes; threading commutes."""
    inputs, main = Inputs(program), program.main
    made = gradient_function(main, program.args, program.wrt, None, program.final)
    operands = [*inputs.args, *inputs.cts, *inputs.final]
    found, state = evaluate(made, operands, inputs.cells)
    results, final = evaluate(main, inputs.args, inputs.cells)
    n = len(results)
    close("gradient: results", found[:n], results, tolerance)
    close("gradient: states", select(program.cells, state), select(program.cells, final), tolerance)

    d_results, d_final = directional(main, inputs.args, inputs.cells, *inputs.directions(program))
    slope = dot(inputs.cts, d_results) + dot(inputs.final, select(program.final, d_final))
    close("gradient: direction", [dot(found[n:], [*inputs.d_args, *inputs.d_cells])], [slope], 10 * tolerance)
    _same_threaded("thread(gradient)", made, operands, inputs.cells, found, state, tolerance)
    _gradient_of_threaded(program, inputs, found[n:], tolerance)


def _gradient_of_threaded(program: Program, inputs: Inputs, expected: Arrays, tolerance: float) -> None:
    """diff(thread(p)) = diff(p); cells that are asked for are kept, changed or not."""
    keep = [*program.wrt, *program.final]
    pure = thread_function(program.main, keep)
    shift = len(pure.inputs)
    wrt = [pure.inputs.index(c) if c in pure.inputs else None for c in program.wrt]
    args = [*(i for i in wrt if i is not None), *(shift + i for i in program.args)]
    n = len(program.main.results)
    places = [*range(n), *(n + pure.outputs.index(c) for c in program.final)]
    made = gradient_function(pure.function, args, (), places)
    operands = [*select(pure.inputs, inputs.cells), *inputs.args, *inputs.cts, *inputs.final]
    found, _ = evaluate(made, operands)
    grads = found[len(pure.function.results) :]
    by_cell = dict(
        zip([c for c, i in zip(program.wrt, wrt, strict=True) if i is not None], grads, strict=False)
    )
    by_arg = grads[len(by_cell) :]
    zeros = [by_cell.get(c, np.zeros(c.type.shape)) for c in program.wrt]
    close("gradient of thread", [*by_arg, *zeros], expected, 10 * tolerance)


def tangents(program: Program, tolerance: float = 1e-12) -> None:
    """The jvp is the derivative along its direction."""
    inputs, main = Inputs(program), program.main
    made = jvp_function(main, program.args, program.wrt, None, program.final)
    operands = [*inputs.args, *inputs.d_args, *inputs.d_cells]
    found, state = evaluate(made, operands, inputs.cells)
    results, final = evaluate(main, inputs.args, inputs.cells)
    d_results, d_final = directional(main, inputs.args, inputs.cells, *inputs.directions(program))
    expected = [*results, *d_results, *select(program.final, d_final)]
    close("jvp", found, expected, 10 * tolerance)
    close("jvp: states", select(program.cells, state), select(program.cells, final), tolerance)
    _same_threaded("thread(jvp)", made, operands, inputs.cells, found, state, tolerance)


def some_wanted(program: Program, tolerance: float = 1e-12) -> bool:
    """With only some results and final cells asked for, gradient and tangents are those of the others at
    zero; False where an unbounded loop is in the way of the gradient.
    """
    inputs, main = Inputs(program), program.main
    results = [i for i in range(len(main.results)) if (program.seed >> i) % 2] or [0]
    final = list(zip(program.final, inputs.final, strict=True))[: program.seed % 3]
    cells = [c for c, _ in final]
    d_results, d_final = directional(main, inputs.args, inputs.cells, *inputs.directions(program))
    wanted = [*(d_results[i] for i in results), *select(cells, d_final)]

    n = len(main.results)
    made = jvp_function(main, program.args, program.wrt, results, cells)
    found, _ = evaluate(made, [*inputs.args, *inputs.d_args, *inputs.d_cells], inputs.cells)
    close("some wanted: jvp", found[n:], wanted, 10 * tolerance)
    try:
        made = gradient_function(main, program.args, program.wrt, results, cells)
    except DerivativeError:
        return False
    cts = [*(inputs.cts[i] for i in results), *(ct for _, ct in final)]
    found, state = evaluate(made, [*inputs.args, *cts], inputs.cells)
    along = dot(found[n:], [*inputs.d_args, *inputs.d_cells])
    close("some wanted: direction", [along], [dot(cts, wanted)], 10 * tolerance)
    expected, after = evaluate(main, inputs.args, inputs.cells)
    close("some wanted: results", found[:n], expected, tolerance)
    close("some wanted: states", select(program.cells, state), select(program.cells, after), tolerance)
    _same_threaded("thread(some wanted)", made, [*inputs.args, *cts], inputs.cells, found, state, tolerance)
    return True


class Pieces:
    """The functions of linearize and transpose, run by hand as a caller would."""

    def __init__(self, program: Program) -> None:
        self.program, self.inputs = program, Inputs(program)
        main = program.main
        flags = [i in program.args for i in range(len(main.params))]
        names = Fresh.beside(main, cells=program.cells)
        self.halves = linearize_function(main, flags, program.wrt, names)
        lin = self.halves.lin
        found, _ = evaluate(self.halves.fwd, self.inputs.args, self.inputs.cells)
        forwarded = [
            self.inputs.cells[f] if isinstance(f, Cell) else self.inputs.args[f]
            for f in self.halves.forwarded
        ]
        self.known = [*(found[i] for i in self.halves.saved), *forwarded]
        self.final = [c for c in program.final if c in self.halves.exit]
        self.back = transpose_function(lin, None, None, [self.shadow(c) for c in self.final], names)
        self.names = names
        self.cts = [self.inputs.cts[i] for i in self.halves.results]
        self.final_cts = dict(zip(program.final, self.inputs.final, strict=True))

    def shadow(self, cell: Cell) -> Cell:
        return self.halves.shadows.get(cell, cell)

    def ct(self, made: Transposed, cell: Cell) -> Cell:
        return made.cotangent_cells.get(cell, cell)


def _zeros_for(function: Function, held: dict[Cell, np.ndarray]) -> dict[Cell, np.ndarray]:
    return {c: held.get(c, np.zeros(c.type.shape, c.type.dtype.numpy)) for c in (*function.effects, *held)}


def inner_product(program: Program, tolerance: float = 1e-12) -> None:
    """<ct, J d> = <Jt ct, d>, and transposing twice gives the linear function back."""
    p = Pieces(program)
    d_cells = dict(zip(program.wrt, p.inputs.d_cells, strict=True))
    seeds = {p.shadow(c): v for c, v in d_cells.items()}
    lin = p.halves.lin
    jd, tangent_cells = evaluate(lin, [*p.known, *p.inputs.d_args], _zeros_for(lin, seeds))
    given = {p.ct(p.back, p.shadow(c)): p.final_cts[c] for c in p.final}
    T = p.back.function
    found, cotangent_cells = evaluate(T, [*p.known, *p.cts], _zeros_for(T, given))
    at = dict(zip(p.back.results, found, strict=True))
    left = dot(p.cts, jd) + dot(
        [p.final_cts[c] for c in p.final], [tangent_cells[p.shadow(c)] for c in p.final]
    )
    right = sum(
        (np.sum(at[len(p.known) + i] * d) for i, d in enumerate(p.inputs.d_args) if len(p.known) + i in at),
        np.float64(0),
    )
    for c, d in d_cells.items():
        ct = p.ct(p.back, p.shadow(c))
        if ct in cotangent_cells:
            right = right + np.sum(cotangent_cells[ct] * d)
    close("inner product", [left], [right], 10 * tolerance)
    _twice(p, jd, tangent_cells, tolerance)


def _twice(p: Pieces, jd: Arrays, tangent_cells: dict[Cell, np.ndarray], tolerance: float) -> None:
    T = p.back.function
    wrt = [p.ct(p.back, p.shadow(c)) for c in p.program.wrt]
    twice = transpose_function(T, None, None, wrt, p.names)
    n = len(p.known)
    d_args = [p.inputs.d_args[i - n] for i in p.back.results]
    given = {p.ct(twice, ct): d for ct, d in zip(wrt, p.inputs.d_cells, strict=True)}
    found, cells = evaluate(twice.function, [*p.known, *d_args], _zeros_for(twice.function, given))
    at = dict(zip(twice.results, found, strict=True))
    again = [at.get(n + i, np.zeros_like(x)) for i, x in enumerate(jd)]
    close("transposing twice: results", again, jd, 10 * tolerance)
    for c in p.final:
        ct = p.ct(twice, p.ct(p.back, p.shadow(c)))
        found_ct = cells.get(ct, np.zeros(c.type.shape))
        close(f"transposing twice: ${c.name}", [found_ct], [tangent_cells[p.shadow(c)]], 10 * tolerance)


def higher_orders(program: Program, orders: int = 2, tolerance: float = 1e-10) -> None:
    """The gradient of the gradient, and so on, against the derivative of each gradient along a direction."""
    inputs = Inputs(program)
    function, operands = program.main, list(inputs.args)
    for order in range(1, orders + 1):
        made = gradient_function(function, program.args, program.wrt)
        before = len(function.results)
        cotangents = random_inputs(
            [v.type for v in function.results if v.type.differentiable], program.seed + order
        )
        found, state = evaluate(made, [*operands, *cotangents], inputs.cells)
        slope, _ = directional(function, operands, inputs.cells, *inputs.directions(program))
        along = dot(found[before:], [*inputs.d_args, *inputs.d_cells])
        close(f"order {order}: direction", [along], [dot(cotangents, slope)], tolerance)
        _same_threaded(
            f"thread(order {order})", made, [*operands, *cotangents], inputs.cells, found, state, 1e-11
        )
        function, operands = made, [*operands, *cotangents]


def well_formed(program: Program) -> None:
    """Everything that the passes make can stand in one module, is verified, and its text parses back."""
    p, main = Pieces(program), program.main
    made = gradient_function(main, program.args, program.wrt, None, program.final)
    also = jvp_function(main, program.args, program.wrt, None, program.final)
    effectful = Module.of([main, p.halves.fwd, p.halves.lin, p.back.function], program.cells)
    for module in (
        effectful,
        Module.of([main, made]),
        Module.of([also]),
        Module.of([thread_function(made).function]),
    ):
        verify(module)
        text = to_text(module)
        assert to_text(parse(text)) == text, "the text does not parse back to itself"


def batching(
    program: Program, function: Function | None = None, size: int = 3, tolerance: float = 1e-11
) -> None:
    """Batching is a loop over the elements, and commutes with threading; what carries the axis is the same
    either way. What is in the other of a cell and its batched cell is never looked at.
    """
    function = function or program.main
    seed, n = program.seed, len(function.results)
    flags = [(seed >> i) % 2 == 0 for i in range(len(function.params))]
    entry = [c for i, c in enumerate(program.cells) if (seed >> i) % 3 == 0]
    args = random_inputs(
        [v.type.batched(size) if flag else v.type for v, flag in zip(function.params, flags, strict=True)],
        seed,
    )
    cells = dict(
        zip(
            program.cells,
            random_inputs([c.type.batched(size) if c in entry else c.type for c in program.cells], seed + 1),
            strict=True,
        )
    )
    made = batch_function(function, flags, size, entry)
    junk = {c: np.full(c.type.shape, 77, c.type.dtype.numpy) for c in (*entry, *made.cells.values())}
    held = {**cells, **junk, **{made.cells[c]: cells[c] for c in entry}}
    found, state = evaluate(made.function, args, held)
    final = {c: state[made.cells[c] if c in made.exit else c] for c in program.cells}
    for i in range(size):
        one = [x[i] if flag else x for x, flag in zip(args, flags, strict=True)]
        mine = {c: x[i] if c in entry else x for c, x in cells.items()}
        expected, after = evaluate(function, one, mine)
        ends = [final[c][i] if c in made.exit else final[c] for c in program.cells]
        close(f"batch: element {i}", [x[i] for x in found], expected, tolerance)
        close(f"batch: states of element {i}", ends, select(program.cells, after), tolerance)
    _same_threaded("thread(batch)", made.function, args, held, found, state, tolerance)

    pure = thread_function(function)
    operands = [*select(pure.inputs, cells), *args]
    differ = [*(c in entry for c in pure.inputs), *flags]
    again = batch_function(pure.function, differ, size, results=[False] * len(pure.function.results))
    ends, _ = evaluate(again.function, operands)
    spread = [
        x if flag else np.broadcast_to(x, (size, *x.shape))
        for x, flag in zip(ends[:n], again.results, strict=False)
    ]
    close("batch(thread): results", spread, found, tolerance)
    close("batch(thread): states", ends[n:], select(pure.outputs, final), tolerance)
    least = batch_function(function, flags, size, entry, results=[False] * n)
    assert least.results == again.results[:n], "batch and thread: other results carry the axis"
    assert [c in least.exit for c in pure.outputs] == list(again.results[n:]), "other cells carry the axis"


CHECKS: Sequence[Callable[[Program], object]] = (
    threading,
    gradient,
    some_wanted,
    tangents,
    inner_product,
    well_formed,
    batching,
)
