"""Every rule of every row, on the row's own samples: a new row is tested without a new test."""

from typing import Any

import pytest

from stategrad.ir import IRError, Row, Sample, Undefined, Zero
from stategrad.ir import row as declare
from stategrad.ir.ops.common import alike, batch
from tests import row_checks as checks

_CASES = [pytest.param(row, sample, id=name) for name, row, sample in checks.cases()]
_DIFFERENTIABLE = [c for c in _CASES if checks.differentiable(*c.values)]


@pytest.mark.parametrize("check", checks.CHECKS.values(), ids=checks.CHECKS)
@pytest.mark.parametrize(("row", "sample"), _CASES)
def test_rule(row: Row, sample: Sample, check: Any) -> None:
    check(row, sample)


@pytest.mark.parametrize(("row", "sample"), _DIFFERENTIABLE)
def test_derivative(row: Row, sample: Sample) -> None:
    checks.check_derivative(row, sample)


@pytest.mark.parametrize("row", checks.plain_rows(), ids=lambda r: r.name)
def test_lowering(row: Row) -> None:
    checks.check_lowering(row)


@pytest.mark.parametrize("row", checks.plain_rows(), ids=lambda r: r.name)
def test_declaration(row: Row) -> None:
    assert row.doc.endswith((".", "…", "}"))
    assert row.samples
    if isinstance(row.derivative, (Zero, Undefined)):
        assert row.derivative.why


def test_a_row_without_samples_is_refused() -> None:
    with pytest.raises(IRError, match="twice has no samples"):
        declare(
            name="twice",
            doc="2x.",
            type_rule=alike("f", 1),
            evaluate=lambda x: x + x,
            derivative=Zero("no"),
            batch=batch,
            lower="add",
            samples=(),
        )
