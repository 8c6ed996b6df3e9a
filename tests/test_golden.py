"""The golden files as a whole, and the plugin that runs them."""

from pathlib import Path

import pytest

from stategrad.passes import PASSES, parse_pipeline
from tests.golden_files import FOLDER, GoldenMismatch, read_golden, run_golden

pytest_plugins = ["pytester"]

FILES = sorted(FOLDER.rglob("*.sg"))
PROGRAM = "func @f(%x: f32[]) -> f32[] {\n  %y: f32[] = sin %x\n  return %x\n}\n"


def test_every_pass_has_a_golden_file() -> None:
    used = set()
    for path in FILES:
        golden = read_golden(path.read_text())
        if golden.outcome == "result":
            used |= {p.name for p in parse_pipeline(golden.passes).passes}
    assert PASSES.keys() <= used


def test_every_golden_file_says_what_comes_out() -> None:
    assert not [p.name for p in FILES if not read_golden(p.read_text()).outcome]


def test_a_file_starts_with_its_passes() -> None:
    with pytest.raises(GoldenMismatch, match="starts with // RUN:"):
        read_golden(PROGRAM)


def test_the_outcome_is_what_the_passes_make(tmp_path: Path) -> None:
    golden = run_golden(read_golden(f"// RUN: dce\n{PROGRAM}"), tmp_path)
    assert (golden.outcome, golden.expected) == ("result", "func @f(%x: f32[]) -> f32[] {\n  return %x\n}\n")
    refused = run_golden(read_golden("// RUN:\nfunc f\n"), tmp_path)
    assert refused.outcome == "error"
    assert refused.expected.startswith("line 2, column 6: unexpected 'f'; expected a function as in @f\n")


CONFTEST = """
import pathlib

from tests import conftest
from tests.conftest import pytest_addoption, pytest_collect_file

conftest.FOLDER = pathlib.Path(__file__).parent
"""


def test_a_wrong_file_fails_until_it_is_updated(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.conftest.FOLDER", FOLDER)  # what the inner run changes is put back
    pytester.makeconftest(CONFTEST)
    path = pytester.path / "wrong.sg"
    path.write_text(f"// RUN: dce\n{PROGRAM}// ---- result\n{PROGRAM}")
    failed = pytester.runpytest_inprocess()
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["-  %y: f32?? = sin %x", "*pytest --update-golden*"])
    pytester.runpytest_inprocess("--update-golden").assert_outcomes(passed=1)
    right = PROGRAM.replace("  %y: f32[] = sin %x\n", "")
    assert path.read_text() == f"// RUN: dce\n{PROGRAM}// ---- result\n{right}"
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
