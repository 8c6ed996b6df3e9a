"""The four state effects. They are closed under transposition: see docs/ir.md."""

from typing import Any

import numpy as np

from ..core import Cell, Effect, Operation, Type
from ..derivatives import Undefined
from ..errors import IRError, IRTypeError
from ..opdef import Row, register, results, sample

_BY_THE_PASSES = Undefined("effects are differentiated by the passes, cell by cell")


class EffectRow(Row):
    """A row whose meaning is a step on a cell: evaluation goes through the machine that holds the cells."""

    def evaluate_op(self, machine: Any, op: Operation, args: Any) -> Any:
        return results(self.evaluate(machine.cells, op.attributes["cell"], *args))


def _holds(*, cell: Cell) -> Type:
    return cell.type


def _accepts(x: Type, *, cell: Cell) -> tuple[()]:
    if x != cell.type:
        raise IRTypeError(f"${cell.name} holds {cell.type}, not {x}")
    return ()


def _needs_threading(*_: Any) -> Any:
    raise IRError("effects have no lowering: run thread-state first")


def _read(cells: dict[Cell, Any], cell: Cell) -> Any:
    return cells[cell]


def _write(cells: dict[Cell, Any], cell: Cell, x: Any) -> tuple[()]:
    cells[cell] = x
    return ()


def _accumulate(cells: dict[Cell, Any], cell: Cell, x: Any) -> tuple[()]:
    cells[cell] = (cells[cell] + x).astype(x.dtype)
    return ()


def _take(cells: dict[Cell, Any], cell: Cell) -> Any:
    held = cells[cell]
    cells[cell] = np.zeros_like(held)
    return held


def _effect(name: str, doc: str, effect: Effect, evaluate: Any) -> None:
    takes_value = effect in (Effect.WRITE, Effect.ACCUMULATE)
    register(
        EffectRow(
            name=name,
            doc=doc,
            type_rule=_accepts if takes_value else _holds,
            evaluate=evaluate,
            derivative=_BY_THE_PASSES,
            batch=_needs_threading,
            lower=_needs_threading,
            samples=(sample(*(["f32[3]"] if takes_value else []), cell=Cell("s", Type.parse("f32[3]"))),),
            symbols=("cell",),
            effect=effect,
        )
    )


_effect("read", "The value that the cell holds.", Effect.READ, _read)
_effect("write", "Makes the cell hold the operand.", Effect.WRITE, _write)
_effect("accumulate", "Adds the operand to what the cell holds.", Effect.ACCUMULATE, _accumulate)
_effect("take", "The value that the cell holds; afterwards it holds zero.", Effect.TAKE, _take)
