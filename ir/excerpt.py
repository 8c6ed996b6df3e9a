"""Excerpts of a text with a caret under the place that an error is about."""

from collections.abc import Sequence

_WIDTH = 100


def excerpt(lines: Sequence[str], line: int, column: int, file: str = "") -> str:
    """Line `line` and the one before it, numbered, with a caret under `column`; both count from 1."""
    digits = len(str(line))
    shown = [f"  --> {file}:{line}:{column}"] if file else []
    if 1 < line <= len(lines) and lines[line - 2].strip():
        shown.append(f"  {line - 1:>{digits}} | {_cut(lines[line - 2], 0)}")
    start = max(0, column - _WIDTH) if column > _WIDTH else 0
    text = lines[line - 1] if 1 <= line <= len(lines) else ""
    pointer = " " * (column - 1 - start + (1 if start else 0)) + "^"
    shown += [f"  {line} | {_cut(text, start)}", f"  {'':>{digits}} | {pointer}"]
    return "\n".join(part.rstrip() for part in shown)


def _cut(line: str, start: int) -> str:
    """The part that can be shown: a window of a very long line, without tabs and control characters."""
    end = start + 2 * _WIDTH
    kept = "".join(c if c.isprintable() else " " for c in line[start:end])
    return f"{'…' if start else ''}{kept}{'…' if len(line) > end else ''}"
