"""`scan`: a loop of known length over carried values and the slices of stacked ones."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ..core import Cell, Operation, Region, Type, Value
from ..errors import IRTypeError
from ..evaluate import stack
from ..opdef import register
from ..structured import StructuredOp
from .regions import Flags, check_attributes, check_regions, check_types, param_types, result_types

_COUNTER, _PREDICATE = Type.parse("i32[]"), Type.parse("bool[]")
_LESS = "#stablehlo<comparison_direction LT>"
_ATTRIBUTES = {"carry": int, "each": int, "length": int, "reverse": bool}


class Steady(NamedTuple):
    """What holds at the entry of every step: the fixpoint over carried values and cells together."""

    flags: Flags
    cells: frozenset[Cell]
    results: Flags
    exit: frozenset[Cell]


class Scan(StructuredOp):
    """Operands: carry, each (stacked, one slice a step), const. The region maps carry, slices, const to the
    new carry and one slice of every stacked result.
    """

    name = "scan"
    doc = (
        "Runs the region `length` times, carrying values along; stacked operands give one slice to each step."
    )
    segments = ("carry", "each", "const")
    defaults = MappingProxyType({"reverse": False})

    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region]
    ) -> tuple[Type, ...]:
        check_attributes(self.name, attributes, _ATTRIBUTES)
        check_regions(self.name, regions, 1)
        (body,) = regions
        carry, each, length = (attributes[key] for key in ("carry", "each", "length"))
        if carry + each > len(types):
            raise IRTypeError(
                f"scan has {len(types)} operands, expected at least {carry} carry and {each} each"
            )
        slices = [_slice(t, length) for t in types[carry : carry + each]]
        steps = [*types[:carry], *slices, *types[carry + each :]]
        check_types("the parameters of the body of scan", param_types(body), steps)
        results = result_types(body)
        check_types("the carry that the body of scan yields", results[:carry], types[:carry])
        return (*types[:carry], *(t.batched(length) for t in results[carry:]))

    def steps_of(self, op: Operation) -> int:
        return op.attributes["length"]

    # -------------------------------------------------------------------------------------------- meaning
    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        (body,) = op.regions
        k, first_const, length = op.attributes["carry"], self._first_const(op), op.attributes["length"]
        carry, each, const = list(args[:k]), args[k:first_const], args[first_const:]
        stacked: list[list[Any]] = [[None] * length for _ in op.results[k:]]
        for i in _steps(op):
            found = machine.run(body, [*carry, *(x[i] for x in each), *const])
            carry = found[:k]
            for parts, part in zip(stacked, found[k:], strict=True):
                parts[i] = part
        return [*carry, *(stack(parts, r.type) for parts, r in zip(stacked, op.results[k:], strict=True))]

    def thread(self, ctx: Any, op: Operation) -> None:
        changed, fixed = ctx.changed(op), ctx.fixed(op)
        (body,) = op.regions
        region = ctx.region(body, leading=changed, trailing=fixed, first=changed)
        attributes = {**op.attributes, "carry": op.attributes["carry"] + len(changed)}
        operands = [*ctx.now(changed), *ctx.operands(op), *ctx.now(fixed)]
        results = ctx.emit(op, operands, attributes, [region], names=[c.name for c in changed])
        ctx.hold(changed, results[: len(changed)])
        ctx.bind(op, results[len(changed) :])

    # -------------------------------------------------------------------------------------------- activity
    def steady(self, walk: Any, op: Operation, active: Flags, cells: frozenset[Cell]) -> Steady:
        """The least that holds at the entry of every step, of tangents or of batch axes."""
        (body,) = op.regions
        k = op.attributes["carry"]
        while True:
            results, exit = walk.region(body, active, cells)
            grown = tuple(a or (i < k and results[i]) for i, a in enumerate(active))
            if grown == active and exit <= cells:
                return Steady(active, cells, results, exit)
            active, cells = grown, cells | exit

    def activity(
        self, walk: Any, op: Operation, active: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        found = self.steady(walk, op, active, cells)
        k = op.attributes["carry"]
        return found.flags[:k] + found.results[k:], found.exit if op.attributes["length"] else found.cells

    def cotangent_steady(
        self, walk: Any, op: Operation, linear: Flags, given: Flags, cells: frozenset[Cell]
    ) -> Steady:
        """The same for the transposed loop: its flags are those of the results of the body."""
        (body,) = op.regions
        k = op.attributes["carry"]
        linear = (True,) * k + linear[k:]
        while True:
            results, exit = walk.region(body, linear, given, cells)
            grown = tuple(g or (i < k and results[i]) for i, g in enumerate(given))
            if grown == given and exit <= cells:
                return Steady(given, cells, results, exit)
            given, cells = grown, cells | exit

    def cotangent_activity(
        self, walk: Any, op: Operation, linear: Flags, given: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        found = self.cotangent_steady(walk, op, linear, given, cells)
        k = op.attributes["carry"]
        return found.flags[:k] + found.results[k:], found.exit if op.attributes["length"] else found.cells

    def demand(
        self, walk: Any, op: Operation, wanted: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        (body,) = op.regions
        k = op.attributes["carry"]
        while True:
            params, entry = walk.region(body, wanted, cells)
            grown = tuple(w or (i < k and params[i]) for i, w in enumerate(wanted))
            if grown == wanted and entry <= cells:
                return wanted[:k] + params[k:], entry if op.attributes["length"] else cells
            wanted, cells = grown, cells | entry

    # -------------------------------------------------------------------------------------------- derivatives
    def linearize(self, ctx: Any, op: Operation) -> None:
        (body,) = op.regions
        k, first_const, n = op.attributes["carry"], self._first_const(op), len(op.results)
        tangents = ctx.tangents(op)
        steady = self.steady(ctx.walk, op, ctx.flags(op), ctx.active(op))
        child = ctx.child(body, steady.flags, steady.cells)
        active = [i for i, flag in enumerate(steady.flags) if flag]
        kept = _residuals(ctx, op, child, k, first_const)

        results = ctx.primal(op, ctx.operands(op), op.attributes, [child.primal_region(kept.new)], kept.names)
        saved = [*results[n:], *(results[i] for i in kept.stacked.values())]
        inner = [*kept.new, *kept.stacked]

        dk = [i for i in active if i < k]
        de = [i for i in active if k <= i < first_const]
        dc = [i for i in active if i >= first_const]
        dy = [i for i in range(k, n) if child.result_tangents[i] is not None]
        at = child.residual
        params = [
            *(child.tangent_params[i] for i in (*dk, *de)),
            *(at(v) for v in (*inner, *kept.each)),
            *(child.tangent_params[i] for i in dc),
            *(at(v) for v in kept.const),
        ]
        region = child.linear_region(params, [*dk, *dy])
        operands = [
            *(ctx.tangent_or_zero(op, i) for i in dk),
            *(tangents[i] for i in de),
            *saved,
            *kept.each.values(),
            *(tangents[i] for i in dc),
            *kept.const.values(),
        ]
        each = len(de) + len(inner) + len(kept.each)
        found = ctx.linear(op, operands, {**op.attributes, "carry": len(dk), "each": each}, [region])
        exit = child.exit if op.attributes["length"] else steady.cells
        ctx.finish(op, results[:n], dict(zip([*dk, *dy], found, strict=True)), exit)

    def forward(self, ctx: Any, op: Operation) -> None:
        (body,) = op.regions
        k, first_const, n = op.attributes["carry"], self._first_const(op), len(op.results)
        operands, tangents = ctx.operands(op), ctx.tangents(op)
        steady = self.steady(ctx.walk, op, ctx.flags(op), ctx.active(op))
        child = ctx.child(body, steady.flags, steady.cells)
        groups = (range(k), range(k, first_const), range(first_const, len(operands)))
        dk, de, dc = ([i for i in group if steady.flags[i]] for group in groups)
        dy = [i for i in range(k, n) if child.result_tangents[i] is not None]

        def together(primal: Sequence[Any], tangent: Sequence[Any]) -> list[Any]:
            carry = [*primal[:k], *(tangent[i] for i in dk)]
            each = [*primal[k:first_const], *(tangent[i] for i in de)]
            return [*carry, *each, *primal[first_const:], *(tangent[i] for i in dc)]

        given = [ctx.tangent_or_zero(op, i) if i in dk else t for i, t in enumerate(tangents)]
        yielded = [*child.results[:k], *map(child.result_tangent, dk)]
        yielded += [*child.results[k:], *map(child.result_tangent, dy)]
        region = child.whole(together(child.params, child.tangent_params), yielded)
        attributes = {**op.attributes, "carry": k + len(dk), "each": op.attributes["each"] + len(de)}
        found = ctx.primal(op, together(operands, given), attributes, [region])
        results = [*found[:k], *found[k + len(dk) : n + len(dk)]]
        d_results = [*found[k : k + len(dk)], *found[n + len(dk) :]]
        exit = child.exit if op.attributes["length"] else steady.cells
        ctx.finish(op, results, dict(zip([*dk, *dy], d_results, strict=True)), exit)

    def transpose(self, ctx: Any, op: Operation) -> None:
        (body,) = op.regions
        k, first_const = op.attributes["carry"], self._first_const(op)
        linear = tuple(i < k or flag for i, flag in enumerate(ctx.linear_flags(op)))
        cotangents = ctx.cotangents(op)
        steady = self.cotangent_steady(ctx.walk, op, linear, ctx.given(op), ctx.active(op))
        child = ctx.child(body, linear, steady.flags, steady.cells)

        accumulators = _accumulate_closed_over(child, range(first_const, len(op.operands)))
        dk = [i for i in range(k) if steady.flags[i]]
        dy = [i for i in range(k, len(op.results)) if steady.flags[i]]
        de = [i for i in range(k, first_const) if child.found[i] is not None]
        known = [i for i, flag in enumerate(linear) if not flag]
        region = child.region(
            [child.given_results[i] for i in (*dk, *dy)] + [child.known_params[i] for i in known],
            [child.found_or_zero(i) for i in dk] + [child.found[i] for i in de],
        )
        operands = [
            *(ctx.cotangent_or_zero(op, i) for i in dk),
            *(cotangents[i] for i in dy),
            *(ctx.known(op.operands[i]) for i in known),
        ]
        each = len(dy) + sum(i < first_const for i in known)
        reverse = not op.attributes["reverse"]
        attributes = {**op.attributes, "carry": len(dk), "each": each, "reverse": reverse}
        ctx.b.locals.extend(accumulators.values())
        results = ctx.emit(op, operands, attributes, [region])
        for i, value in zip([*dk, *de], results, strict=True):
            ctx.add(op.operands[i], value)
        for i, cell in accumulators.items():
            ctx.add(op.operands[i], ctx.b.take(cell=cell))
        ctx.leave(op, child.exit if op.attributes["length"] else steady.cells)

    # --------------------------------------------------------------------------------- batching, lowering
    def batched(
        self, walk: Any, op: Operation, batched: Flags, cells: frozenset[Cell]
    ) -> tuple[Flags, frozenset[Cell]]:
        found = self.steady(walk, op, batched, cells)
        k = op.attributes["carry"]
        return found.flags[:k] + found.results[k:], found.cells

    def batch(self, ctx: Any, op: Operation) -> None:
        """Time stays the leading axis of what is stacked, so the batch axis goes second there."""
        (body,) = op.regions
        k, first_const = op.attributes["carry"], self._first_const(op)
        steady = self.steady(ctx.walk, op, ctx.flags(op), ctx.cells(op))
        flags, cells = steady.flags, steady.cells
        yielded = flags[:k] + steady.results[k:]
        ctx.enter(op, cells)
        operands = [ctx.with_axis(v) if f else ctx.value(v) for v, f in zip(op.operands, flags, strict=True)]
        for i in range(k, first_const):
            if flags[i]:
                operands[i] = ctx.swapped(operands[i])
        region = ctx.region(body, flags, yielded, cells, cells)
        results = ctx.emit(op, operands, op.attributes, [region])
        stacked = [ctx.swapped(r) if f else r for r, f in zip(results[k:], yielded[k:], strict=True)]
        ctx.bind(op, [*results[:k], *stacked], yielded)
        ctx.leave(op, cells)

    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        (body,) = op.regions
        k, first_const, length = op.attributes["carry"], self._first_const(op), op.attributes["length"]
        types = [r.type for r in op.results]
        stacks = [hlo.constant(0, t) for t in types[k:]]
        if length == 0:
            return [*operands[:k], *stacks]
        counter = _COUNTER
        one, last = hlo.constant(1, counter), hlo.constant(length - 1, counter)
        end = hlo.constant(length, counter)
        each = list(zip(operands[k:first_const], [v.type for v in op.operands[k:first_const]], strict=True))

        def proceed(state: list[Any]) -> Any:
            return hlo.op("compare", [state[0], end], [_PREDICATE], comparison_direction=_LESS)[0]

        def step(state: list[Any]) -> list[Any]:
            i = hlo.op("subtract", [last, state[0]], [counter])[0] if op.attributes["reverse"] else state[0]
            slices = [hlo.index(x, t, i) for x, t in each]
            found = hlo.inline(body, [*state[1 : 1 + k], *slices, *operands[first_const:]])
            stacked = [
                hlo.update(whole, part, t, i)
                for whole, part, t in zip(state[1 + k :], found[k:], types[k:], strict=True)
            ]
            return [hlo.op("add", [state[0], one], [counter])[0], *found[:k], *stacked]

        start = [hlo.constant(0, counter), *operands[:k], *stacks]
        return hlo.while_loop(start, [counter, *types], proceed, step)[1:]

    @staticmethod
    def _first_const(op: Operation) -> int:
        return op.attributes["carry"] + op.attributes["each"]


register(Scan())


class _Kept(NamedTuple):
    """How the linear loop gets each primal value that it uses inside: from what is passed to the primal loop
    (`each`, `const`), from a result that is stacked anyway, or from a `new` stacked result.
    """

    each: dict[Value, Value]
    const: dict[Value, Value]
    stacked: dict[Value, int]
    new: list[Value]

    @property
    def names(self) -> list[str]:
        return [v.name for v in self.new]


def _residuals(ctx: Any, op: Operation, child: Any, carry: int, first_const: int) -> _Kept:
    operands = ctx.operands(op)
    yielded = {child.results[i]: i for i in range(carry, len(op.results))}
    kept = _Kept({}, {}, {}, [])
    for v in child.residuals:
        index, cell = child.param_index(v), child.entry_cell(v)
        if index is not None and index >= carry:
            (kept.each if index < first_const else kept.const)[v] = operands[index]
        elif cell is not None and not op.effects[cell].changes:
            kept.const[v] = ctx.read(cell)
        elif v in yielded:
            kept.stacked[v] = yielded[v]
        else:
            kept.new.append(v)
    return kept


def _accumulate_closed_over(child: Any, const: Iterable[int]) -> dict[int, Cell]:
    """Sums the cotangents of closed-over tangents over the steps: each in a cell that is taken after the
    loop.
    """
    cells: dict[int, Cell] = {}
    for i in const:
        cotangent = child.found[i]
        if cotangent is not None:
            cells[i] = child.accumulator(cotangent.type)
            child.b.accumulate(cotangent, cell=cells[i])
    return cells


def _slice(type: Type, length: int) -> Type:
    if not type.shape or type.shape[0] != length:
        raise IRTypeError(
            f"scan over {length} steps: an `each` operand is {type}, expected a leading axis of {length}"
        )
    return type.with_shape(type.shape[1:])


def _steps(op: Operation) -> Iterable[int]:
    steps = range(op.attributes["length"])
    return reversed(steps) if op.attributes["reverse"] else steps
