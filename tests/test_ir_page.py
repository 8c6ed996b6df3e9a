"""docs/ir.md is true: its programs parse and print as they stand, its tables are those of rows and passes."""

import re
from types import ModuleType

import pytest

from stategrad.ir import parse, to_text, verify
from tools import op_table, pass_table
from tools.op_table import PAGE

PROGRAMS = re.findall(r"```sg\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("tables", [op_table, pass_table], ids=["operations", "passes"])
def test_the_tables_are_those_of_rows_and_passes(tables: ModuleType, request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text(encoding="utf-8")
    if request.config.getoption("--update-golden"):
        PAGE.write_text(tables.with_table(page), encoding="utf-8")
    assert tables.with_table(PAGE.read_text(encoding="utf-8")) == PAGE.read_text(encoding="utf-8")


def test_every_pass_and_option_is_in_the_table() -> None:
    (line,) = [line for line in pass_table.table().splitlines() if line.startswith("| `linearize`")]
    assert "`of = @…`" in line
    assert "`wrt = []`: The cells whose value on entry is differentiated by." in line


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_on_the_page_are_well_formed(number: int) -> None:
    module = parse(PROGRAMS[number])
    verify(module)
    assert to_text(module) == PROGRAMS[number]


def test_there_are_programs_on_the_page() -> None:
    assert len(PROGRAMS) >= 3
