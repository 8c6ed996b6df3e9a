"""What a program means, in NumPy: the oracle that every pass and every lowering is held against."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .core import Cell, Function, Operation, Region, Type, Value, zeros
from .errors import EvaluationError, IRTypeError

Array = Any
"""A NumPy array or scalar, or a jax array where foreign operations or PRNG keys are at work."""


class Machine:
    """Runs regions on arrays. `cells` has what each cell holds now; effects read and change it."""

    def __init__(self, cells: Mapping[Cell, Array]) -> None:
        self.cells: dict[Cell, Array] = dict(cells)

    def run(self, region: Region, args: Sequence[Array]) -> list[Array]:
        """The results of one run; the region's local cells are zero at its entry and gone at its end."""
        env: dict[Value, Array] = dict(zip(region.params, args, strict=True))
        self.cells.update((cell, zeros(cell.type)) for cell in region.locals)
        for op in region.operations:
            found = op.opdef.evaluate_op(self, op, [env[v] for v in op.operands])
            _check_results(op, found)
            env.update(zip(op.results, found, strict=True))
        for cell in region.locals:
            del self.cells[cell]
        return [env[v] for v in region.results]


def evaluate(
    function: Function, args: Sequence[Array], cells: Mapping[Cell, Array] | Mapping[str, Array] | None = None
) -> tuple[list[Array], dict[Cell, Array]]:
    """The results of `function` on arrays, and what each cell holds afterwards. Cells may be given by name.

    Raises:
        EvaluationError: arguments or cells are missing or of another type, or a row broke its own type rule.
    """
    named = {cell.name: cell for cell in function.effects}
    cells = {named.get(key, key) if isinstance(key, str) else key: x for key, x in (cells or {}).items()}
    if len(args) != len(function.params):
        raise EvaluationError(f"@{function.name} takes {len(function.params)} arguments, not {len(args)}")
    for i, (value, arg) in enumerate(zip(function.params, args, strict=True)):
        _check(f"argument {i} (%{value.name}) of @{function.name}", arg, value.type)
    for cell in function.effects:
        if cell not in cells:
            raise EvaluationError(f"@{function.name} touches ${cell.name}, which was given no value")
        _check(f"the value of ${cell.name}", cells[cell], cell.type)
    machine = Machine(cells)
    with np.errstate(all="ignore"):
        return machine.run(function.body, args), machine.cells


def stack(parts: Sequence[Array], type: Type) -> Array:
    """The arrays along a new leading axis: `type` is that of the result, for when there are none.

    Arrays that are not NumPy's are stacked by their own library; PRNG keys have no `stack` and go one by one.
    """
    if not parts:
        return zeros(type)
    first = parts[0]
    if isinstance(first, (np.ndarray, np.generic)):
        return np.stack(parts)
    if type.dtype.numpy is not None:
        return first.__array_namespace__().stack(parts)
    whole = first[None][np.zeros(len(parts), int)]
    for i, part in enumerate(parts):
        whole = whole.at[i].set(part)
    return whole


def _check(what: str, array: Array, type: Type) -> None:
    shape = tuple(np.shape(array))
    if shape != type.shape:
        raise EvaluationError(f"{what} has the shape {list(shape)}, expected {type}")
    if type.dtype.numpy is None:
        return
    try:
        found = Type.of(array)
    except (AttributeError, IRTypeError):
        raise EvaluationError(f"{what} is {array!r}, expected an array of type {type}") from None
    if found != type:
        raise EvaluationError(f"{what} has the type {found}, expected {type}")


def _check_results(op: Operation, found: Sequence[Array]) -> None:
    if len(found) != len(op.results):
        raise EvaluationError(f"{op.name} gave {len(found)} results, expected {len(op.results)}")
    for i, (array, value) in enumerate(zip(found, op.results, strict=True)):
        type = value.type
        if getattr(array, "shape", None) != type.shape or array.dtype != type.dtype.numpy:
            _check(f"result {i} of {op.name} (at {op.location.source})", array, type)
