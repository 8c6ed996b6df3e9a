"""A second, independent meaning of programs: loops unrolled in Python, state in a dictionary.

It runs on NumPy with complex numbers, so that `im(f(x + ih)) / h` is the derivative of f to the last digit,
and on jax.numpy, so that jax.grad can differentiate through it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stategrad.ir import Cell, Function, Operation, Region

STEP = 1e-30
"""The imaginary step: nothing is subtracted, so it may be as small as one likes."""


def run(
    function: Function, args: Sequence[Any], cells: Mapping[Cell, Any], xp: Any = np
) -> tuple[list[Any], dict[Cell, Any]]:
    """The results and the final cells."""
    state = dict(cells)
    return _region(function.body, args, state, xp), state


def directional(
    function: Function,
    args: Sequence[np.ndarray],
    cells: Mapping[Cell, np.ndarray],
    directions: Mapping[int, np.ndarray],
    cell_directions: Mapping[Cell, np.ndarray],
) -> tuple[list[np.ndarray], dict[Cell, np.ndarray]]:
    """The derivative of results and final cells along a direction in arguments and cells."""
    moved = [x + 1j * STEP * directions[i] if i in directions else x for i, x in enumerate(args)]
    state = {c: x + 1j * STEP * cell_directions[c] if c in cell_directions else x for c, x in cells.items()}
    results, final = run(function, moved, state)
    return [np.imag(r) / STEP for r in results], {c: np.imag(x) / STEP for c, x in final.items()}


def _region(region: Region, args: Sequence[Any], state: dict[Cell, Any], xp: Any) -> list[Any]:
    env = dict(zip(region.params, args, strict=True))
    for cell in region.locals:
        state[cell] = xp.zeros(cell.type.shape, cell.type.dtype.numpy)
    for op in region.operations:
        env.update(zip(op.results, _operation(op, [env[v] for v in op.operands], state, xp), strict=True))
    return [env[v] for v in region.results]


def _operation(op: Operation, args: Sequence[Any], state: dict[Cell, Any], xp: Any) -> Sequence[Any]:
    cell = op.attributes.get("cell")
    match op.name:
        case "read":
            return [state[cell]]
        case "write":
            state[cell] = args[0]
            return []
        case "accumulate":
            state[cell] = state[cell] + args[0]
            return []
        case "take":
            held, state[cell] = state[cell], xp.zeros(cell.type.shape, cell.type.dtype.numpy)
            return [held]
        case "scan":
            return _scan(op, args, state, xp)
        case "cond":
            chosen = min(max(int(_real(args[0])), 0), len(op.regions) - 1)
            return _region(op.regions[chosen], args[1:], state, xp)
        case "while":
            return _while(op, args, state, xp)
        case "remat":
            return _region(op.regions[0], args, state, xp)
        case "call":
            return _region(op.attributes["callee"].body, args, state, xp)
    return [ROWS[op.name](xp, op, *args)]


def _scan(op: Operation, args: Sequence[Any], state: dict[Cell, Any], xp: Any) -> list[Any]:
    k, each, length = op.attributes["carry"], op.attributes["each"], op.attributes["length"]
    carry, stacks = list(args[:k]), [dict[int, Any]() for _ in op.results[k:]]
    for t in range(length):
        i = length - 1 - t if op.attributes["reverse"] else t
        slices = [x[i] for x in args[k : k + each]]
        found = _region(op.regions[0], [*carry, *slices, *args[k + each :]], state, xp)
        carry = found[:k]
        for stack, part in zip(stacks, found[k:], strict=True):
            stack[i] = part
    stacked = [
        xp.stack([s[i] for i in range(length)]) if length else xp.zeros(r.type.shape)
        for s, r in zip(stacks, op.results[k:], strict=True)
    ]
    return [*carry, *stacked]


def _while(op: Operation, args: Sequence[Any], state: dict[Cell, Any], xp: Any) -> list[Any]:
    k, n = op.attributes["carry"], op.attributes["carry"] + op.attributes["cond_const"]
    carry = list(args[:k])
    while _region(op.regions[0], [*carry, *args[k:n]], state, xp)[0]:
        carry = _region(op.regions[1], [*carry, *args[n:]], state, xp)
    return carry


def _real(x: Any) -> Any:
    return np.real(x) if np.iscomplexobj(x) else x


def _constant(xp: Any, op: Operation) -> Any:
    type = op.attributes["type"]
    return xp.zeros(type.shape, type.dtype.numpy) + xp.asarray(op.attributes["value"], type.dtype.numpy)


def _broadcast(xp: Any, op: Operation, x: Any) -> Any:
    shape, dimensions = op.attributes["shape"], op.attributes["dimensions"]
    x = xp.asarray(x)
    aligned = [x.shape[dimensions.index(d)] if d in dimensions else 1 for d in range(len(shape))]
    return xp.broadcast_to(x.reshape(aligned), shape)


def _dot(xp: Any, op: Operation, x: Any, y: Any) -> Any:
    assert op.attributes["batch"] == ((), ())
    return xp.tensordot(x, y, op.attributes["contract"])


ROWS: Mapping[str, Callable[..., Any]] = {
    "constant": _constant,
    "add": lambda xp, op, x, y: x + y,
    "sub": lambda xp, op, x, y: x - y,
    "mul": lambda xp, op, x, y: x * y,
    "neg": lambda xp, op, x: -x,
    "sin": lambda xp, op, x: xp.sin(x),
    "cos": lambda xp, op, x: xp.cos(x),
    "tanh": lambda xp, op, x: xp.tanh(x),
    "square": lambda xp, op, x: x * x,
    "lt": lambda xp, op, x, y: _real(x) < _real(y),
    "select": lambda xp, op, p, x, y: xp.where(p, x, y),
    "reduce_sum": lambda xp, op, x: xp.sum(x, op.attributes["axes"]),
    "broadcast": _broadcast,
    "transpose": lambda xp, op, x: xp.transpose(x, op.attributes["permutation"]),
    "reshape": lambda xp, op, x: xp.reshape(x, op.attributes["shape"]),
    "dot": _dot,
}
