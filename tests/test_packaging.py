"""What is installed: the wheel holds every package and data file, and works without the checkout."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILD = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
SOURCES = ("stategrad", "ir", "passes", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources."""
    folder = tmp_path_factory.mktemp("build")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / name, folder)
    subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=folder, check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        f"{installed}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, installed in (
            ("stategrad", "stategrad"),
            ("ir", "stategrad/ir"),
            ("passes", "stategrad/passes"),
        )
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".lark", ".typed") and "__pycache__" not in path.parts
    }
    assert sources <= names
    assert {name.partition("/")[0] for name in names - sources} <= {"stategrad-0.1.0.dist-info"}
    assert {"stategrad/py.typed", "stategrad/ir/grammar.lark"} <= names


def test_the_installed_package_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import stategrad, stategrad.ir, stategrad.passes\n"
        "print(stategrad.__file__, stategrad.ir.__file__, stategrad.passes.__file__)\n"
        "s = stategrad.State(2.0)\n"
        "print(stategrad.grad(lambda x: x * s.value ** 2, grad_states=s)(3.0))"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-W", "error", "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    *files, gradient = ran.stdout.split()
    assert all(Path(file).is_relative_to(tmp_path) for file in files)
    assert float(gradient) == 12.0


@pytest.mark.parametrize("name", ["ir", "passes"])
def test_the_folders_refuse_their_bare_name(name: str) -> None:
    ran = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode != 0
    assert f"import this package as stategrad.{name}" in ran.stderr


def test_runtime_dependencies_are_the_few() -> None:
    project = CONFIG["project"]
    names = {re.split(r"[<>=\[]", entry)[0] for entry in project["dependencies"]}
    assert names == {"jax", "jaxlib", "numpy", "ml_dtypes", "lark", "networkx"}
    assert {"test", "demo", "bench", "docs", "units", "optax", "nnx"} <= project[
        "optional-dependencies"
    ].keys()


@pytest.mark.parametrize("script", ["tools/demo", "tools/test", "tools/environment", ".ci/run"])
def test_scripts_are_valid_bash_and_executable(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    ran = subprocess.run(["bash", "-n", script], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_command_says_what_it_can_do() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "stategrad", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "demo" in ran.stdout
