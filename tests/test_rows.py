"""Every rule of every row, on the row's own samples: a new row is tested without a new test."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stategrad.ir import IRError, Jvp, Linear, Row, Sample, Undefined, Zero
from stategrad.ir import row as declare
from stategrad.ir.opdef import ROWS
from stategrad.ir.ops.common import alike, batch, slope, slopes
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


def _everywhere(check: Callable[[Row, Sample], None]) -> Callable[[Row], None]:
    def run(row: Row) -> None:
        for sample in row.samples:
            check(row, sample)

    return run


_derivative = _everywhere(checks.check_derivative)
MISTAKES: dict[str, tuple[str, Callable[[Row], None], dict[str, Any]]] = {
    "another slope": (
        "sin",
        _derivative,
        {"derivative": slope(lambda b, x, y: b.neg(b.cos(x)))},
    ),
    "a slope of the wrong operand": (
        "sub",
        _derivative,
        {"derivative": Jvp(lambda b, op, xs, ts, ys: ts[0])},
    ),
    "a transpose with the wrong sign": (
        "mul",
        _derivative,
        {"derivative": Linear("each", lambda b, op, i, ct, xs: b.neg(b.mul(ct, xs[1 - i])))},
    ),
    "a wrong shortcut for a missing tangent": (
        "add",
        _derivative,
        {
            "derivative": Linear(
                "all",
                lambda b, op, i, ct, xs: ct,
                lambda b, op, ts: b.neg(next(t for t in ts if t is not None)),
            )
        },
    ),
    "operands exchanged in a transpose": (
        "select",
        _derivative,
        {
            "derivative": Linear(
                "all",
                lambda b, op, i, ct, xs: (
                    b.select(xs[0], b.zeros(ct.type), ct) if i == 1 else b.select(xs[0], ct, b.zeros(ct.type))
                ),
            )
        },
    ),
    "no derivative": ("exp", _derivative, {"derivative": Zero("forgotten")}),
    "a derivative that is said not to exist": (
        "nextafter",
        _derivative,
        {"derivative": slopes(lambda b, xs, y: xs[0], lambda b, xs, y: xs[1])},
    ),
    "another lowering": ("max", checks.check_lowering, {"lower": "minimum"}),
    "another type": (
        "tanh",
        _everywhere(checks.check_types),
        {"evaluate": lambda x: np.tanh(np.asarray(x, np.float64))},
    ),
    "axes that forget the batch axis": (
        "reduce_sum",
        _everywhere(checks.check_batching),
        {"batch": lambda b, op, xs, flags: b.emit(op.opdef, xs, op.attributes)},
    ),
    "overflow kept quiet": ("exp", _everywhere(checks.check_may_be_nan), {"may_be_nan": False}),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_caught(name: str) -> None:
    row_name, check, changes = MISTAKES[name]
    row = ROWS[row_name]
    assert isinstance(row, Row)
    check(row)
    with pytest.raises((AssertionError, IRError)):
        check(replace(row, **changes))
