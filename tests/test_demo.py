"""The demo, as a user runs it: trains on real images, and leaves curve, programs and StableHLO."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stategrad import cli, demo
from stategrad.ir import parse


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a run of the demo leaves, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "stategrad", "demo", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return out, ran.stdout


def test_it_recognises_the_test_images(left: tuple[Path, str]) -> None:
    printed = left[1]
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)%", printed)
    assert float(accuracy) >= 96
    assert "1438 images to train with, 359 to test with" in printed
    assert "epoch 30" in printed


def test_its_gradient_is_that_of_the_pure_function(left: tuple[Path, str]) -> None:
    (error,) = re.findall(r"largest difference (\S+)", left[1])
    assert float(error) < 1e-4


def test_it_leaves_the_curve_as_a_picture(left: tuple[Path, str]) -> None:
    assert (left[0] / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["gradient", "step"])
def test_it_leaves_a_program_for_every_pass_that_parses_back(left: tuple[Path, str], name: str) -> None:
    files = sorted((left[0] / name).glob("*.sg"))
    assert [int(file.name[:2]) for file in files] == list(range(len(files)))
    assert files[0].name == "00-input.sg"
    assert any("thread-state" in file.name for file in files)
    modules = [parse(file.read_text()) for file in files]
    assert "layers.0.weight" in modules[0].cells
    assert len({file.read_text() for file in files}) > 3
    assert all('/demo.py":' in file.read_text() for file in files), "the user's lines are gone"


def test_it_leaves_the_stablehlo_with_the_lines_of_the_user(left: tuple[Path, str]) -> None:
    text = (left[0] / "step.stablehlo.mlir").read_text()
    assert "stablehlo.dot_general" in text
    assert '/demo.py":' in text
    assert "func.func public @main" in text


def test_a_failed_check_gives_an_exit_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = []
    monkeypatch.setattr(demo, "run", lambda *args: seen.append(args) or False)
    assert cli.main(["demo", "--out", str(tmp_path), "--epochs", "3"]) == 1
    assert json.dumps(seen[0][:3], default=str) == json.dumps([str(tmp_path), 3, 0])


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "absent", "a command whose module does not exist")
    assert cli.main(["absent"]) == 1
    assert "pip install 'stategrad[absent]'" in capsys.readouterr().err
