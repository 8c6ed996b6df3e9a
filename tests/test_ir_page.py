"""docs/ir.md is true: its programs parse and print as they stand, its table is that of the rows."""

import re

import pytest

from stategrad.ir import parse, to_text, verify
from tools.op_table import PAGE, with_table

PROGRAMS = re.findall(r"```sg\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_table_of_operations_is_that_of_the_rows(request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text(encoding="utf-8")
    if request.config.getoption("--update-golden"):
        PAGE.write_text(with_table(page), encoding="utf-8")
    assert with_table(PAGE.read_text(encoding="utf-8")) == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
def test_programs_on_the_page_are_well_formed(number: int) -> None:
    module = parse(PROGRAMS[number])
    verify(module)
    assert to_text(module) == PROGRAMS[number]


def test_there_are_programs_on_the_page() -> None:
    assert len(PROGRAMS) >= 4
