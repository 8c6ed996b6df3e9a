"""Runs every topic, or those named on the command line, and writes benchmarks/RESULTS.md."""

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path

import jax

from . import dispatch, staging
from .measure import Ratio

TOPICS = {"dispatch": dispatch, "staging": staging}
RESULTS = Path(__file__).parent / "RESULTS.md"


def table(title: str, rows: dict[str, dict[str, Ratio]]) -> Iterator[str]:
    """A topic as a Markdown table: a row a model, a column a way to run it."""
    columns = list(next(iter(rows.values())))
    yield f"## {title}\n"
    yield f"| | {' | '.join(columns)} | baseline |"
    yield "|---" * (len(columns) + 2) + "|"
    for model, ratios in rows.items():
        seconds = next(iter(ratios.values())).seconds
        yield f"| {model} | {' | '.join(map(str, ratios.values()))} | {seconds * 1e6:,.0f} us |"
    yield ""


def main() -> None:
    """Entry point of `python -m benchmarks`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", choices=[*TOPICS, []], help="default: all")
    names = parser.parse_args().topics or list(TOPICS)
    lines = [
        "# Measurements",
        "",
        "Made by `python -m benchmarks`: medians of ratios (quartiles in brackets), in one process.",
        f"Python {platform.python_version()}, jax {jax.__version__}, {jax.devices()[0].device_kind}.",
        "",
    ]
    for name in names:
        lines.extend(table(TOPICS[name].TITLE, TOPICS[name].run()))
        print("\n".join(lines[-6:]))
    if names == list(TOPICS):
        RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
