"""Imports: the CPU time of a new interpreter that imports a library, user and system together."""

import os
import resource
import subprocess
import sys
import tempfile

from .libraries import BASELINE
from .measure import Cell, Effort, Missing, ratios
from .table import OURS, Row, Table

LIBRARIES = {
    BASELINE: "jax",
    OURS: "stategrad",
    "brainstate": "brainstate",
    "flax nnx": "flax.nnx",
    "equinox": "equinox",
}


def run(effort: Effort) -> list[Table]:
    """Each library's import, with its bytecode at hand as in an installed package."""
    libraries = {name: LIBRARIES[name] for name in effort.pick(list(LIBRARIES), [BASELINE, OURS])}
    with tempfile.TemporaryDirectory() as folder:
        cells = _measured(libraries, _environment(folder, effort), effort.rounds)
    return [Table("CPU time of an import", (Row("import", cells, must=1.15),))]


def _environment(folder: str, effort: Effort) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return dict(os.environ) if effort.tiny else {**kept, "PYTHONPYCACHEPREFIX": folder}


def _measured(libraries: dict[str, str], environment: dict[str, str], rounds: int) -> dict[str, Cell]:
    first = {name: _seconds(module, environment) for name, module in libraries.items()}  # writes bytecode
    samples: dict[str, list[float]] = {name: [] for name, found in first.items() if found is not None}
    for _ in range(rounds):
        for name, found in samples.items():
            found.append(_seconds(libraries[name], environment) or 0.0)
    measured = ratios(samples, BASELINE)
    return {name: measured.get(name, Missing("not installed")) for name in libraries}


def _seconds(module: str, environment: dict[str, str]) -> float | None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", f"import {module}"]
    if subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False).returncode:
        return None
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
