"""Golden files: a program, passes, and the exact text that comes out, in one file.

    // RUN: thread-state, dce
    func @f(%x: f32[]) -> f32[] { … }
    // ---- result            (or: // ---- error)
    the text of the program after the passes, or the message

Between the passes the program is verified and has to survive a round trip through its text.
`pytest --update-golden` rewrites what does not match.
"""

import difflib
import re
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

from stategrad.ir import IRError, parse, to_text, verify
from stategrad.passes import PassError, PassTextError, parse_pipeline
from stategrad.passes.pipeline import Step

FOLDER = Path(__file__).parent / "golden"
_RUN = re.compile(r"// RUN:(.*)\n")
_OUTCOME = re.compile(r"^// ---- (result|error)\n", re.MULTILINE)


class Golden(NamedTuple):
    """The parts of a golden file. The program includes the `// RUN:` line: its lines count from the top."""

    passes: str
    program: str
    outcome: str
    expected: str

    def __str__(self) -> str:
        return f"{self.program}// ---- {self.outcome}\n{self.expected}"


class GoldenMismatch(Exception):
    """What came out is not what the file says."""


def read_golden(text: str) -> Golden:
    """The parts of a golden file; a new one may end after the program."""
    run = _RUN.match(text)
    if run is None:
        raise GoldenMismatch("a golden file starts with // RUN: and the passes to run")
    program, outcome, expected = (*_OUTCOME.split(text, maxsplit=1), "", "")[:3]
    return Golden(run[1].strip(), program, outcome, expected)


def run_golden(golden: Golden, folder: Path) -> Golden:
    """The file as it should be; `folder` takes what failing passes leave behind."""
    try:
        module = parse(golden.program)
        verify(module)
        module = parse_pipeline(golden.passes).run(module, _check_step, folder)
    except (IRError, PassError, PassTextError) as e:
        return golden._replace(outcome="error", expected=_message(e))
    return golden._replace(outcome="result", expected=to_text(module))


def _check_step(step: Step) -> None:
    verify(step.module)
    text = to_text(step.module)
    again = to_text(parse(text))
    if again != text:
        raise GoldenMismatch(f"after {step.title} the text changes in a round trip:\n{_diff(text, again)}")


def _message(error: Exception) -> str:
    lines = str(error).splitlines()
    return "".join(f"{line}\n" for line in lines if not line.startswith("  the program it was given:"))


def _diff(expected: str, found: str) -> str:
    lines = difflib.unified_diff(expected.splitlines(), found.splitlines(), "expected", "found", lineterm="")
    return "\n".join(lines)


class GoldenFile(pytest.File):
    """Collects one item from one file."""

    def collect(self):
        yield GoldenItem.from_parent(self, name=self.path.stem)


class GoldenItem(pytest.Item):
    """Runs the passes and compares."""

    def runtest(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        golden = read_golden(text)
        with tempfile.TemporaryDirectory() as folder:
            found = run_golden(golden, Path(folder))
        if str(found) == text:
            return
        if self.config.getoption("--update-golden") and golden.outcome in ("", found.outcome):
            self.path.write_text(str(found), encoding="utf-8")
        else:
            right = f"If this is right: pytest --update-golden {self.path}"
            raise GoldenMismatch(f"{_diff(text, str(found))}\n{right}")

    def repr_failure(self, excinfo, style=None):
        if isinstance(excinfo.value, GoldenMismatch):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self):
        return self.path, 0, f"golden {self.name}"
