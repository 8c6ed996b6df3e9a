"""`while`: a loop that runs as long as its condition holds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..build import clone_region
from ..core import Cell, Operation, Region, Type
from ..dtypes import BOOL
from ..errors import DerivativeError, IRTypeError
from ..opdef import register
from ..structured import StructuredOp
from .regions import (
    Flags,
    changed_cells,
    check_attributes,
    check_regions,
    check_types,
    param_types,
    result_types,
)

_ATTRIBUTES = {"carry": int, "cond_const": int}
_EXPECTED_STEPS = 64
"""How often a loop is taken to run where its cost is asked for: nobody knows, and to run it again is dear."""


class _Steady(NamedTuple):
    """Which operands and which cells carry a batch axis whenever the condition is asked, whether its answer
    does, and which cells do after it was asked.
    """

    flags: Flags
    cells: frozenset[Cell]
    differs: bool
    asked: frozenset[Cell]


class While(StructuredOp):
    """Operands: carry, cond_const, body_const. The condition maps carry and cond_const to `bool[]`, the body
    maps carry and body_const to the new carry. Both see the same, current cells.
    """

    name = "while"
    doc = "Runs the second region as long as the first yields true."
    segments = ("carry", "cond_const", "body_const")

    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region]
    ) -> tuple[Type, ...]:
        check_attributes(self.name, attributes, _ATTRIBUTES)
        check_regions(self.name, regions, 2)
        condition, body = regions
        k, n = attributes["carry"], attributes["carry"] + attributes["cond_const"]
        if n > len(types):
            raise IRTypeError(
                f"while has {len(types)} operands, expected at least {k} carry and {n - k} cond_const"
            )
        check_types("the parameters of the condition of while", param_types(condition), types[:n])
        check_types("the result of the condition of while", result_types(condition), [Type(BOOL)])
        check_types("the parameters of the body of while", param_types(body), [*types[:k], *types[n:]])
        check_types("the carry that the body of while yields", result_types(body), types[:k])
        return tuple(types[:k])

    def steps_of(self, op: Operation) -> int:
        return _EXPECTED_STEPS

    # -------------------------------------------------------------------------------------------- meaning
    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        condition, body = op.regions
        k, n = _groups(op)
        carry, cond_const, body_const = list(args[:k]), args[k:n], args[n:]
        while bool(machine.run(condition, [*carry, *cond_const])[0]):
            carry = machine.run(body, [*carry, *body_const])
        return carry

    def thread(self, ctx: Any, op: Operation) -> None:
        if op.regions[0].changed:
            self._thread_rotated(ctx, op)
            return
        condition, body = op.regions
        k, n = _groups(op)
        changed, fixed = ctx.changed(op), ctx.fixed(op)
        asked = [c for c in fixed if c in condition.effects]
        used = [c for c in fixed if c in body.effects]
        regions = [
            ctx.region(condition, leading=changed, trailing=asked),
            ctx.region(body, leading=changed, trailing=used, first=changed),
        ]
        operands = ctx.operands(op)
        results = ctx.emit(
            op,
            [*ctx.now(changed), *operands[:n], *ctx.now(asked), *operands[n:], *ctx.now(used)],
            {"carry": k + len(changed), "cond_const": n - k + len(asked)},
            regions,
            names=[c.name for c in changed],
        )
        ctx.hold(changed, results[: len(changed)])
        ctx.bind(op, results[len(changed) :])

    def _thread_rotated(self, ctx: Any, op: Operation) -> None:
        """A condition that changes cells runs once before the loop and again at the end of each step; its
        answer is carried. What the condition closes over is then needed by the body.
        """
        condition, body = op.regions
        k, n = _groups(op)
        changed, fixed = ctx.changed(op), ctx.fixed(op)
        operands = ctx.operands(op)
        (first,) = ctx.inline(condition, operands[:n])
        entry = ctx.now(changed)

        test = ctx.new_region([first.type, *(c.type for c in changed), *(v.type for v in operands[:k])])
        inner = ctx.new_region([v.type for v in (first, *entry, *operands, *ctx.now(fixed))])
        step = inner.params[1 + len(changed) :]
        inner.hold(changed, inner.params[1 : 1 + len(changed)])
        inner.hold(fixed, step[len(operands) :])
        carry = inner.inline(body, [*step[:k], *step[n : len(operands)]])
        (again,) = inner.inline(clone_region(condition), [*carry, *step[k:n]])
        results = ctx.emit(
            op,
            [first, *entry, *operands, *ctx.now(fixed)],
            {"carry": 1 + len(changed) + k, "cond_const": 0},
            [test.close([test.params[0]]), inner.close([again, *inner.now(changed), *carry])],
        )
        ctx.hold(changed, results[1 : 1 + len(changed)])
        ctx.bind(op, results[1 + len(changed) :])

    # -------------------------------------------------------------------------------------------- derivatives
    def activity(
        self, walk: Any, op: Operation, active: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        flags, cells = self._steady(walk, op, active, cells)
        return flags[: op.attributes["carry"]], cells

    def _steady(
        self, walk: Any, op: Operation, active: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        """Which operands have tangents, and which cells a nonzero shadow, whenever the condition is asked."""
        condition, body = op.regions
        k, n = _groups(op)
        while True:
            _, asked = walk.region(condition, active[:n], cells)
            results, exit = walk.region(body, active[:k] + active[n:], asked)
            carry = tuple(a or r for a, r in zip(active[:k], results, strict=True))
            if carry == active[:k] and asked | exit <= cells:
                return active, cells
            active, cells = carry + active[k:], cells | asked | exit

    def demand(
        self, walk: Any, op: Operation, wanted: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        """`cells` become those wanted after the condition was asked, `before` are those wanted then."""
        condition, body = op.regions
        k = op.attributes["carry"]
        while True:
            asked, before = walk.region(condition, (False,), cells)
            params, entry = walk.region(body, wanted, before)
            carry = tuple(w or a or p for w, a, p in zip(wanted, asked[:k], params[:k], strict=True))
            if carry == wanted and entry <= cells:
                return carry + asked[k:] + params[k:], before
            wanted, cells = carry, cells | entry

    def cotangent_activity(
        self, walk: Any, op: Operation, linear: Flags, given: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        raise _no_reverse(op)

    def linearize(self, ctx: Any, op: Operation) -> None:
        raise _no_reverse(op)

    def forward(self, ctx: Any, op: Operation) -> None:
        condition, body = op.regions
        k, n = _groups(op)
        operands, tangents = ctx.operands(op), ctx.tangents(op)
        flags, cells = self._steady(ctx.walk, op, ctx.flags(op), ctx.active(op))
        test = ctx.child(condition, flags[:n], cells)
        step = ctx.child(body, flags[:k] + flags[n:], test.exit)
        dk = [i for i in range(k) if flags[i]]

        def group(start: int, end: int) -> list[Any]:
            return [*operands[start:end], *(t for t in tangents[start:end] if t is not None)]

        carry = [*operands[:k], *(ctx.tangent_or_zero(op, i) for i in dk)]
        cond_const, body_const = group(k, n), group(n, len(operands))
        regions = [
            test.whole(_both(test, 0, k) + _both(test, k, n), test.results),
            step.whole(
                _both(step, 0, k) + _both(step, k, len(step.params)),
                [*step.results, *map(step.result_tangent, dk)],
            ),
        ]
        attributes = {"carry": len(carry), "cond_const": len(cond_const)}
        found = ctx.primal(op, [*carry, *cond_const, *body_const], attributes, regions)
        ctx.finish(op, found[:k], dict(zip(dk, found[k:], strict=True)), test.exit)

    def transpose(self, ctx: Any, op: Operation) -> None:
        raise _no_reverse(op)

    # --------------------------------------------------------------------------------- batching, lowering
    def batched(
        self, walk: Any, op: Operation, batched: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        steady = self._batched_steady(walk, op, batched, cells)
        return steady.flags[: op.attributes["carry"]], steady.asked

    def _batched_steady(self, walk: Any, op: Operation, flags: Flags, cells: frozenset[Cell]) -> _Steady:
        condition, body = op.regions
        k, n = _groups(op)
        while True:
            (differs,), asked = walk.region(condition, flags[:n], cells)
            asked = asked | changed_cells(op) if differs else asked
            found, exit = walk.region(body, flags[:k] + flags[n:], asked)
            grown = tuple(differs or a or f for a, f in zip(flags[:k], found, strict=True))
            if grown == flags[:k] and exit <= cells:
                return _Steady(flags, cells, differs, asked)
            flags, cells = grown + flags[k:], cells | exit

    def batch(self, ctx: Any, op: Operation) -> None:
        """Where the condition differs along the batch, every element runs until the last one is done, and one
        that is done keeps what it has.
        """
        condition, body = op.regions
        k, n = _groups(op)
        flags, cells, differs, asked = self._batched_steady(ctx.walk, op, ctx.flags(op), ctx.cells(op))
        if differs and not ctx.pure(op):
            ctx.threaded(op)
            return
        ctx.enter(op, cells)
        operands = [ctx.with_axis(v) if f else ctx.value(v) for v, f in zip(op.operands, flags, strict=True)]
        test = ctx.region(condition, flags[:n], (differs,), cells, asked)
        step = ctx.region(body, flags[:k] + flags[n:], flags[:k], asked, cells)
        if differs:
            test, step = ctx.masked(op, test, step, k)
            operands = [*operands[:n], *operands[k:]]
        ctx.bind(op, ctx.emit(op, operands, op.attributes, [test, step]), flags[:k])
        ctx.leave(op, asked)

    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        condition, body = op.regions
        k, n = _groups(op)
        return hlo.while_loop(
            list(operands[:k]),
            [r.type for r in op.results],
            lambda carry: hlo.inline(condition, [*carry, *operands[k:n]])[0],
            lambda carry: hlo.inline(body, [*carry, *operands[n:]]),
        )


register(While())


def _groups(op: Operation) -> tuple[int, int]:
    """Where the carry ends, and where cond_const ends."""
    return op.attributes["carry"], op.attributes["carry"] + op.attributes["cond_const"]


def _both(child: Any, start: int, end: int) -> list[Any]:
    """Some parameters of a region, then the tangents of those that have one."""
    return [*child.params[start:end], *(t for t in child.tangent_params[start:end] if t is not None)]


def _no_reverse(op: Operation) -> DerivativeError:
    return DerivativeError(
        "a `while` has no bound on its steps, so its residuals cannot be saved and it has no derivative in "
        "reverse. Use bounded_while_loop, or a loop of known length: for_loop, jax.lax.scan, or "
        f"jax.lax.fori_loop with fixed limits (at {op.location.source})"
    )
