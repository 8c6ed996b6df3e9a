"""The tables as pictures: bars of ratios, and a curve for the growth with depth."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .depth import TIME
from .measure import Figure
from .table import Table

try:
    import matplotlib as mpl
    from matplotlib.figure import Figure as Picture
except ImportError:  # the tables do without
    mpl = None


def draw(tables: Mapping[str, list[Table]], folder: Path) -> list[Path]:
    """A picture a topic, `folder/topic.svg`; none if matplotlib is not installed."""
    return (
        [_save(topic, found, folder) for topic, found in tables.items() if found] if mpl is not None else []
    )


def _save(topic: str, tables: list[Table], folder: Path) -> Path:
    mpl.rcParams.update({"svg.hashsalt": topic, "svg.fonttype": "none", "font.size": 8})
    height = sum(1.0 + 0.3 * len(t.rows) for t in tables)
    picture = Picture(figsize=(7, height), layout="constrained")
    ratios = [1.0 + len(t.rows) for t in tables]
    for axes, table in zip(
        picture.subplots(len(tables), squeeze=False, height_ratios=ratios)[:, 0], tables, strict=True
    ):
        (_curves if table.title == TIME else _bars)(axes, table)
    folder.mkdir(exist_ok=True)
    path = folder / f"{topic}.svg"
    picture.savefig(path, metadata={"Date": None})
    return path


def _bars(axes: Any, table: Table) -> None:
    columns = [c for c in table.columns if c != table.baseline]
    thick = 0.8 / max(1, len(columns))
    for i, column in enumerate(columns):
        found = [
            (y, cell) for y, row in enumerate(table.rows) if isinstance(cell := row.cells.get(column), Figure)
        ]
        axes.barh([y + i * thick for y, _ in found], [c.value for _, c in found], thick, label=column)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks([y + 0.4 - thick / 2 for y in range(len(table.rows))], [row.name for row in table.rows])
    axes.invert_yaxis()
    axes.set_title(f"{table.title}, relative to {table.baseline}", fontsize=8)
    axes.legend(fontsize=6)


def _curves(axes: Any, table: Table) -> None:
    rows = [row for row in table.rows if row.name.endswith("layers")]
    for column in table.columns:
        points = [
            (int(row.name.split()[0]), cell.value)
            for row in rows
            if isinstance(cell := row.cells[column], Figure) and not math.isnan(cell.value)
        ]
        axes.loglog(*zip(*points, strict=True), marker="o", label=column)
    axes.set_title(table.title, fontsize=8)
    axes.set_xlabel("layers")
    axes.legend(fontsize=6)
