"""Tests of the tests: a planted mistake in a rule of differentiation is found by the random programs."""

import inspect
import textwrap
from types import FunctionType
from typing import Any

import pytest

from stategrad.ir.ops import call, cond, remat, scan
from stategrad.passes import (
    activity,
    batch_context,
    batch_walk,
    demand,
    linearize,
    pullback,
    tape,
    thread_state,
    transpose,
)
from tests.fuzz import failure
from tests.random_programs import random_program

TANGENT_EFFECT = (linearize.LinearizeContext, "_tangent_effect")
EFFECT = (pullback.TransposeContext, "_effect")
SCAN = scan.Scan
TAPE = tape.TapeTranspose

MISTAKES = {
    "linearize: a write of an inactive value leaves the shadow as it was": (
        *TANGENT_EFFECT,
        "linear.take(cell=self._run.shadow(cell))\n            self._cells.discard(cell)",
        "self._cells.discard(cell)",
    ),
    "linearize: a write of an inactive value is no effect": (
        *TANGENT_EFFECT,
        "elif active and effect == Effect.WRITE:",
        "elif False:",
    ),
    "linearize: a read forgets the shadow": (*TANGENT_EFFECT, "linear.read(", "linear.take("),
    "linearize: what a changed cell held is still believed": (
        linearize.LinearizeContext,
        "_forget",
        "self._held.pop(cell, None)",
        "pass",
    ),
    "linearize: a changed cell is taken for one as it was on entry": (
        linearize.LinearizeContext,
        "_forget",
        "self._changed.add(cell)",
        "pass",
    ),
    "linearize: a function is looked up without its active cells": (
        linearize.Linearizer,
        "function",
        "key = function, active, cells",
        "key = function, active",
    ),
    "linearize: loops find no fixpoint over cells": (SCAN, "steady", "and exit <= cells", ""),
    "linearize: loops find no fixpoint over the carry": (SCAN, "steady", "grown == active and exit", "exit"),
    "linearize: a loop reads a cell again that it changes": (
        scan,
        "_residuals",
        "and not op.effects[cell].changes",
        "",
    ),
    "linearize: carried values are passed in once": (scan, "_residuals", "and index >= carry", ""),
    "linearize: a branch is forgotten at its end": (
        cond.Cond,
        "linearize",
        "frozenset().union(*(c.exit for c in children))",
        "children[0].exit",
    ),
    "linearize: a loop of no steps has its body's end": (
        SCAN,
        "linearize",
        'child.exit if op.attributes["length"] else steady.cells',
        "child.exit",
    ),
    "linearize: remat reads its cells after it ran": (
        remat.Remat,
        "linearize",
        "        outer = [*(operands[i] for i in again.params), *map(ctx.read, again.cells)]\n"
        "        results = ctx.primal_copy(op)\n",
        "        results = ctx.primal_copy(op)\n"
        "        ctx._forget(c for c, e in op.effects.items() if e.changes)\n"
        "        outer = [*(operands[i] for i in again.params), *map(ctx.read, again.cells)]\n",
    ),
    "linearize: remat runs twice": (
        remat.Remat,
        "linearize",
        "results = ctx.primal_copy(op)",
        "results = ctx.primal_copy(op); results = ctx.primal_copy(op)",
    ),
    "activity: an accumulated tangent is overlooked": (
        activity,
        "tangents_of_effect",
        "elif active:",
        "elif active and effect == Effect.WRITE:",
    ),
    "demand: an accumulated tangent is overlooked": (
        demand.Demand,
        "_effect",
        "if effect in (Effect.WRITE, Effect.ACCUMULATE) and cell in now:",
        "if effect == Effect.WRITE and cell in now:",
    ),
    "demand: loops find no fixpoint over cells": (SCAN, "demand", "and entry <= cells", ""),
    "demand: loops find no fixpoint over the carry": (SCAN, "demand", "grown == wanted and entry", "entry"),
    "demand: a loop of no steps wants what its body does": (
        SCAN,
        "demand",
        'entry if op.attributes["length"] else cells',
        "entry",
    ),
    "demand: what nobody wants stays in its shadow": (
        linearize.LinearizeContext,
        "_clear_unwanted",
        "self.b.linear.at(self.by, op.location).take(cell=self._run.shadow(cell))",
        "pass",
    ),
    "demand: the copy of a function is not asked": (
        demand.Demand,
        "same_of",
        "self.region(copy, wanted, cells)",
        "pass",
    ),
    "forward: a loop of no steps has its body's end": (
        SCAN,
        "forward",
        'child.exit if op.attributes["length"] else steady.cells',
        "child.exit",
    ),
    "forward: a branch is forgotten at its end": (
        cond.Cond,
        "forward",
        "frozenset().union(*(c.exit for c in children))",
        "children[0].exit",
    ),
    "transpose: a take without a cotangent clears nothing": (
        *EFFECT,
        "b.take(cell=shadow)\n            self._cells.discard(cell)",
        "self._cells.discard(cell)",
    ),
    "transpose: write gives a read": (*EFFECT, "(b.take if effect == Effect.WRITE else b.read)", "b.read"),
    "transpose: accumulate gives a take": (
        *EFFECT,
        "(b.take if effect == Effect.WRITE else b.read)",
        "b.take",
    ),
    "transpose: take gives an accumulate": (
        *EFFECT,
        "(b.write if effect == Effect.TAKE else b.accumulate)",
        "b.accumulate",
    ),
    "transpose: read gives a write": (
        *EFFECT,
        "(b.write if effect == Effect.TAKE else b.accumulate)",
        "b.write",
    ),
    "transpose: a second cotangent replaces the first": (
        pullback.TransposeContext,
        "add",
        "self.b.add(before, cotangent)",
        "cotangent",
    ),
    "transpose: loops keep their direction": (
        SCAN,
        "transpose",
        'not op.attributes["reverse"]',
        'op.attributes["reverse"]',
    ),
    "transpose: loops find no fixpoint over cells": (SCAN, "cotangent_steady", "and exit <= cells", ""),
    "transpose: only the last step counts for what is closed over": (
        scan,
        "_accumulate_closed_over",
        "child.b.accumulate(",
        "child.b.write(",
    ),
    "transpose: a branch is forgotten at its end": (
        cond.Cond,
        "transpose",
        "frozenset().union(*(c.exit for c in children))",
        "children[0].exit",
    ),
    "transpose: a function is looked up without its cotangents": (
        transpose.Transposer,
        "function",
        "key = function, linear, given, asked",
        "key = function, linear, asked",
    ),
    "transpose: the cotangents of local cells live on": (
        pullback.RegionTranspose,
        "run_all",
        "self.b.locals.extend(map(self._run.cotangent_cell, region.locals))",
        "",
    ),
    "gradient: what is written keeps the cotangent of what was there before": (
        TAPE,
        "_effect",
        "if effect == Effect.WRITE:\n                self._forget(cell)",
        "",
    ),
    "gradient: a second read replaces the cotangent of the first": (
        TAPE,
        "_accumulate",
        "cotangent if held is None else self.b.add(held, cotangent)",
        "cotangent",
    ),
    "gradient: a taken cell keeps its cotangent": (
        TAPE,
        "_effect",
        "if effect == Effect.TAKE:\n            self._forget(cell)",
        "",
    ),
    "gradient: a loop does not see the cotangents of cells": (
        TAPE,
        "_structured",
        "if held is not None:",
        "if False:",
    ),
    "gradient: cells that a loop touched are forgotten": (
        TAPE,
        "_structured",
        "self._in_memory.add(cell)",
        "pass",
    ),
    "batch: a take leaves what the cell held before": (
        batch_context.BatchContext,
        "_effect",
        "self._b.write(self._b.filler(cell.type), cell=cell)",
        "pass",
    ),
    "batch: what is the same for all goes into the batched cell": (
        batch_context.BatchContext,
        "_store",
        "if value in self._wide:",
        "if value in self._wide and cell not in self._cells:",
    ),
    "batch: a sum starts from an empty batched cell": (
        batch_context.BatchContext,
        "_effect",
        "self.spread([cell])",
        "pass",
    ),
    "batch: a loop starts from an empty batched cell": (SCAN, "batch", "ctx.enter(op, cells)", "pass"),
    "batch: a branch leaves its batched cell as it was": (
        batch_context.BatchContext,
        "close",
        "self.spread(sorted(exit, key=lambda c: c.name))",
        "pass",
    ),
    "batch: where the index differs only the first branch changes cells": (
        cond.Cond,
        "batched",
        "cells | changed_cells(op)",
        "cells",
    ),
    "batch: a write overlooks the axis": (
        batch_walk,
        "_effect",
        "elif op.operands[0] in wide:",
        "elif op.operands[0] in wide and effect == Effect.ACCUMULATE:",
    ),
    "thread: local cells start at one": (
        thread_state.ThreadContext,
        "_held",
        "self.b.filler(cell.type)",
        "self.b.constant(1, cell.type)",
    ),
    "thread: a call keeps what its callee changed": (
        call.Call,
        "thread",
        "ctx.hold(callee.outputs, results[n:])",
        "",
    ),
}

TELLING = (1, 5, 14, 17, 20, 8, 6, 50, 118)
"""Seeds of programs that show many of the mistakes; they are tried first."""


def planted(owner: Any, name: str, old: str, new: str) -> FunctionType:
    """The function with one piece of its source replaced."""
    original = inspect.getattr_static(owner, name)
    source = inspect.getsource(original)
    assert source.count(old) == 1, f"{name} does not have exactly one {old!r}: write the mistake anew"
    module = inspect.getmodule(original)
    found: dict[str, Any] = {}
    exec(compile(textwrap.dedent(source.replace(old, new)), f"<{name}>", "exec"), vars(module), found)
    return found[name]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_planted_mistake_is_found(mistake, monkeypatch):
    owner, name, old, new = MISTAKES[mistake]
    monkeypatch.setattr(owner, name, planted(owner, name, old, new))
    seeds = dict.fromkeys((*TELLING, *range(150)))
    assert any(failure(random_program(seed)) for seed in seeds), "no program shows it"
