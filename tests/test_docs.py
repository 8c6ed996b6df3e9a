"""The pages are true: every example in them runs and prints what stands below it, every link leads somewhere.

A block ```python followed by a block ```text prints exactly that; `--update-golden` rewrites the text.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EXAMPLE = re.compile(r"```python\n(.*?)```\n(?:\n?```text\n(.*?)```\n)?", re.DOTALL)
MARK = "---- end of example"


def examples(page: Path) -> list[re.Match[str]]:
    """The examples of a page; commands and fragments are in blocks of other languages."""
    return list(EXAMPLE.finditer(page.read_text()))


def outputs(page: Path) -> list[str]:
    """What each example of a page prints; they run one after the other in one fresh process."""
    program = "".join(
        f"exec(compile({found[1]!r}, 'example.py', 'exec'), globals())\nprint({MARK!r})\n"
        for found in examples(page)
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split(f"{MARK}\n")[:-1]


def rewritten(page: Path, found: list[str]) -> str:
    """The page with the outputs put in."""
    each = iter(found)

    def shown(match: re.Match[str]) -> str:
        printed = next(each)
        return (
            match[0] if match[2] is None else match[0].replace(f"```text\n{match[2]}", f"```text\n{printed}")
        )

    return EXAMPLE.sub(shown, page.read_text())


@pytest.mark.parametrize("page", [p for p in PAGES if examples(p)], ids=lambda p: p.name)
def test_examples_print_what_the_page_shows(page: Path, request: pytest.FixtureRequest) -> None:
    found = outputs(page)
    if request.config.getoption("--update-golden", default=False):
        page.write_text(rewritten(page, found))
    for example, printed in zip(examples(page), found, strict=True):
        assert printed == (example[2] or ""), f"{page.name} shows something else"


def test_there_are_examples_in_the_readme_the_tour_and_the_tutorial() -> None:
    for name in ("README.md", "docs/tour.md", "docs/gradients.md"):
        assert any(example[2] for example in examples(ROOT / name)), name


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_the_example_in_the_readme_is_short() -> None:
    first = examples(ROOT / "README.md")[0][1]
    assert len([line for line in first.splitlines() if line.strip()]) <= 20
