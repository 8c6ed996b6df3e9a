"""A topic's figures as a table: what is measured, kept as data, and written as Markdown."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .libraries import BASELINE
from .measure import Cell, Figure, Missing

OURS = "stategrad"


@dataclass(frozen=True)
class Row:
    """What one program gave.

    Attributes:
        must: what the figure of stategrad may be at most.
    """

    name: str
    cells: Mapping[str, Cell]
    must: float | None = None


@dataclass(frozen=True)
class Table:
    """Rows of figures, each relative to the column `baseline`.

    Attributes:
        quantity: what the baseline's own figures are: "s" or "B"; empty if the cells are no ratios.
        note: a sentence below the title.
    """

    title: str
    rows: tuple[Row, ...]
    baseline: str = BASELINE
    quantity: str = "s"
    note: str = ""

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in the order of their first appearance."""
        return list(dict.fromkeys(name for row in self.rows for name in row.cells))


# ------------------------------------------------------------------ data
def to_data(table: Table) -> dict[str, Any]:
    """The table as what JSON can hold."""
    rows = [
        {"name": r.name, "must": r.must, "cells": {k: _cell_data(c) for k, c in r.cells.items()}}
        for r in table.rows
    ]
    return {**table.__dict__, "rows": rows}


def _cell_data(cell: Cell) -> Any:
    if isinstance(cell, Missing):
        return cell.reason
    return [
        None if math.isnan(x) else float(f"{x:.4g}") for x in (cell.value, cell.low, cell.high, cell.base)
    ]


def from_data(data: Mapping[str, Any]) -> Table:
    """The table that `to_data` was given."""
    rows = tuple(
        Row(r["name"], {k: _cell(c) for k, c in r["cells"].items()}, r["must"]) for r in data["rows"]
    )
    return Table(**{**data, "rows": rows})


def _cell(data: Any) -> Cell:
    if isinstance(data, str):
        return Missing(data)
    return Figure(*[math.nan if x is None else x for x in data])


# ------------------------------------------------------------------ Markdown
def markdown(table: Table, others: Mapping[str, Table]) -> Iterator[str]:
    """The lines of a table; `others` are the same table from other devices, of which stategrad's column is
    shown.
    """
    columns = table.columns
    has_musts = any(row.must is not None for row in table.rows)
    head = [
        *columns,
        *(["must"] if has_musts else []),
        *([table.baseline + " alone"] if table.quantity else []),
    ]
    head += [f"stategrad on {device}" for device in others]
    yield f"### {table.title}\n"
    if table.note:
        yield f"{table.note}\n"
    yield f"| | {' | '.join(head)} |"
    yield "|---" * (len(head) + 1) + "|"
    reasons: dict[str, int] = {}
    for row in table.rows:
        shown = [_shown(row.cells.get(c, Missing("not measured")), reasons) for c in columns]
        shown += [_must(row)] if has_musts else []
        shown += [_base(table, row)] if table.quantity else []
        shown += [_elsewhere(other, row.name, reasons) for other in others.values()]
        yield f"| {row.name} | {' | '.join(shown)} |"
    yield ""
    for reason, number in reasons.items():
        yield f"{number}. {reason}"
    if reasons:
        yield ""


def _shown(cell: Cell, reasons: dict[str, int]) -> str:
    if isinstance(cell, Missing):
        return f"– ({reasons.setdefault(cell.reason, len(reasons) + 1)})"
    return str(cell)


def _must(row: Row) -> str:
    if row.must is None:
        return ""
    cell = row.cells.get(OURS)
    met = isinstance(cell, Figure) and cell.value <= row.must
    return f"≤ {row.must:.2f}{'' if met else ', missed'}"


def _base(table: Table, row: Row) -> str:
    cell = row.cells.get(table.baseline)
    return _quantity(cell.base, table.quantity) if isinstance(cell, Figure) else ""


def _elsewhere(table: Table, name: str, reasons: dict[str, int]) -> str:
    found = next((row.cells[OURS] for row in table.rows if row.name == name and OURS in row.cells), None)
    return "" if found is None else _shown(found, reasons)


_SCALES = {"s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")), "B": ((1e6, "MB"), (1e3, "kB"), (1.0, "B"))}


def _quantity(value: float, unit: str) -> str:
    if math.isnan(value):
        return ""
    scale, name = next((s for s in _SCALES[unit] if value >= s[0]), _SCALES[unit][-1])
    return f"{value / scale:.3g} {name}"
