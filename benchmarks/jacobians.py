"""Jacobians and Hessians at run time."""

from collections.abc import Callable
from typing import Any

import jax

import stategrad as sg

from .functions import affine, hessian_mlp
from .libraries import BASELINE, check_equal
from .measure import Effort, compare
from .table import OURS, Row, Table

BY_HAND = "by hand"


def run(effort: Effort) -> list[Table]:
    """Of one layer against the formula, and of a small network against JAX."""
    return [
        Table("Jacobian of tanh(W x + b), n = 512", _jacobians(effort), baseline=BY_HAND),
        Table("Hessian of a small MLP", _hessian(effort)),
    ]


def _jacobians(effort: Effort) -> tuple[Row, ...]:
    fn, args, by_hand = affine(effort.pick(512, 8))
    truth = by_hand(*args)
    rows = []
    for name in ("jacrev", "jacfwd"):
        calls = {
            BY_HAND: jax.jit(by_hand),
            OURS: sg.jit(getattr(sg, name)(fn)),
            BASELINE: jax.jit(getattr(jax, name)(fn)),
        }
        makers = {column: _checked(call, args, truth, name) for column, call in calls.items()}
        rows.append(Row(name, compare(makers, BY_HAND, effort)))
    return tuple(rows)


def _hessian(effort: Effort) -> tuple[Row, ...]:
    derivative = hessian_mlp(effort.pick(64, 4))
    truth = derivative.theirs()(*derivative.args)
    calls = {BASELINE: derivative.theirs(), OURS: sg.jit(derivative.ours())}
    makers = {
        column: _checked(call, derivative.args, truth, derivative.name) for column, call in calls.items()
    }
    return (Row(derivative.name, compare(makers, BASELINE, effort)),)


def _checked(call: Callable[..., Any], args: tuple[Any, ...], truth: Any, what: str) -> Callable[[], Any]:
    def make() -> Callable[[], Any]:
        check_equal(call(*args), truth, what)
        return lambda: call(*args)

    return make
