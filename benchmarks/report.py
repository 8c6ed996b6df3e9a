"""Figures on disk: `results.json` holds them by topic and device, `RESULTS.md` and the plots show them."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from .plots import draw
from .table import Table, from_data, markdown, to_data

FOLDER = Path(__file__).parent
_HEAD = """# Measurements

`python -m benchmarks` makes this page; `python -m benchmarks staging dispatch` makes only those topics anew.
A cell is a multiple of the baseline's time (or memory), measured in turns in one process: the median, and the
quartiles in brackets. "must" is what this project asks of itself. The baseline `jax` is the same program by
hand for `jax.jit`: a pure function of a list of arrays, which is donated where the function is a step.
"""


def device() -> str:
    """What the programs run on."""
    return jax.devices()[0].device_kind


def machine() -> str:
    """What a reader must know of the machine to judge the figures."""
    load = os.getloadavg()[0]
    return (
        f"{device()}, {os.cpu_count()} cores, Python {platform.python_version()}, jax {jax.__version__}, "
        f"load {load:.1f} before the topic began"
    )


class Results:
    """What was measured so far, of all topics and devices."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._file = folder / "results.json"
        self._data = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def put(self, topic: str, tables: list[Table], on: str) -> None:
        """Keeps a topic's tables, on disk, in place of earlier ones from this kind of device."""
        self._data = self._read()  # another run may have put its topics there since
        self._data.setdefault(topic, {})[device()] = {"machine": on, "tables": [to_data(t) for t in tables]}
        self._file.write_text(json.dumps(self._data, indent=1, ensure_ascii=False) + "\n")

    def write(self, topics: Mapping[str, str]) -> None:
        """Writes the page and the pictures of all that is kept; `topics` gives their order and titles."""
        known = {topic: title for topic, title in topics.items() if topic in self._data}
        drawn = draw({topic: self._tables(topic)[0] for topic in known}, self._folder / "plots")
        pictures = {path.stem for path in drawn}
        lines = [_HEAD]
        for topic, title in known.items():
            lines.extend(self._section(topic, title, pictures))
        (self._folder / "RESULTS.md").write_text("\n".join(lines).rstrip("\n") + "\n")

    def _tables(self, topic: str) -> tuple[list[Table], dict[str, list[Table]]]:
        """The tables of the main device, which is the CPU if there are any of it, and those of the others."""
        by_device = self._data[topic]
        main = "cpu" if "cpu" in by_device else next(iter(by_device))
        found = {name: [from_data(t) for t in made["tables"]] for name, made in by_device.items()}
        return found.pop(main), found

    def _section(self, topic: str, title: str, pictures: set[str]) -> Iterator[str]:
        yield f"## {topic}\n\n{title}\n"
        yield from (f"- {made['machine']}" for made in self._data[topic].values())
        yield ""
        tables, elsewhere = self._tables(topic)
        for table in tables:
            others = {name: t for name, found in elsewhere.items() for t in found if t.title == table.title}
            yield from markdown(table, others)
        if topic in pictures:
            yield f"![{topic}](plots/{topic}.svg)\n"
