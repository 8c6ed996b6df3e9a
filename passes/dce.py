"""Dead code elimination: mark what is needed, from results and effects backwards, then sweep the rest.

One marking serves a function with all it calls, in linear time, through regions, carries and calls alike.
A carry is needed if its result is, or if something needed inside uses it: one that only feeds itself goes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from stategrad.ir import Cell, Effect, Function, Module, Operation, Region, Value, reachable
from stategrad.ir.record import record

from .pipeline import Pass, register_pass
from .ports import CONTROL, Ports, bodies, ports, segment_lengths
from .rebuild import with_body, with_functions, with_parts
from .spec import FunctionName


@register_pass
@record
class Dce(Pass):
    """Removes what no result and no effect needs; effects on local cells that nobody reads are not needed.

    Functions that nothing calls, and those named in `keep`, keep their parameters and results; others may
    lose some.
    """

    name = "dce"
    keep: tuple[FunctionName, ...] = ()

    def run(self, module: Module) -> Module:
        called = {op.attributes["callee"] for f in module.functions.values() for op in _calls(f.body)}
        entries = [f for f in module.functions.values() if f not in called or f.name in self.keep]
        swept = _sweep_all(entries)
        return with_functions(module, {name: swept[f] for name, f in module.functions.items()})


def dce_function(function: Function) -> Function:
    """`function` without what nothing needs; it keeps its parameters and results, its callees may not.

    The same object when there is nothing to remove.
    """
    return _sweep_all([function])[function]


def _calls(region: Region) -> Iterable[Operation]:
    for op in region.operations:
        if "callee" in op.attributes:
            yield op
        for inner in op.regions:
            yield from _calls(inner)


def _sweep_all(entries: Sequence[Function]) -> dict[Function, Function]:
    functions: dict[Function, None] = {}
    for entry in entries:
        functions.update(dict.fromkeys(reachable(entry)))
    marking = _Marking(functions, entries)
    sweep = _Sweep(marking)
    for function in functions:
        sweep.function(function)
    return sweep.done


class _Marking:
    """What is needed: values, operations, operand slots of structured operations, local cells."""

    def __init__(self, functions: Iterable[Function], entries: Iterable[Function]) -> None:
        self.values: set[Value] = set()
        self.operations: set[Operation] = set()
        self.slots: set[tuple[Operation, int]] = set()
        self.results: dict[Region, set[int]] = {}
        self._outer = {cell for f in entries for cell in f.effects}
        self._observed: set[Cell] = set()
        self._changers: dict[Cell, list[Operation]] = {}
        self._pure: dict[Value, Operation] = {}
        self._maker: dict[Value, tuple[Operation, int]] = {}
        self._param: dict[Value, tuple[Region, int, int]] = {}
        self._runs: dict[Region, list[Operation]] = {}
        self._home: dict[Operation, Region] = {}
        self._effectful: set[Region] = set()
        self._ports: dict[Operation, Ports | None] = {}
        self._todo: list[Value] = []
        for function in functions:
            self._enter(function.body, 0)
        self._mark(entries)

    def _enter(self, region: Region, number: int) -> None:
        for j, p in enumerate(region.params):
            self._param[p] = (region, number, j)
        for op in region.operations:
            if op.opdef.pure:
                for r in op.results:
                    self._pure[r] = op
                continue
            self._home[op] = region
            for i, r in enumerate(op.results):
                self._maker[r] = (op, i)
            self._ports[op] = ports(op)
            for inner in bodies(op):
                self._runs.setdefault(inner, []).append(op)
            for k, inner in enumerate(op.regions):
                self._enter(inner, k)
            cell = op.attributes.get("cell")
            if cell is not None and op.effects[cell].changes:
                self._changers.setdefault(cell, []).append(op)

    def _mark(self, entries: Iterable[Function]) -> None:
        for entry in entries:
            self.results[entry.body] = set(range(len(entry.results)))
            for value in (*entry.params, *entry.results):
                self._need(value)
        for op in self._home:
            cell = op.attributes.get("cell")
            leaf = self._ports[op] is None and not op.regions
            if leaf and (op.external or (cell in self._outer and op.effects[cell].changes)):
                self._keep_effect(op)
        self._run()

    def _run(self) -> None:
        """Marks what needed values are made of."""
        todo, pure, operations, values = self._todo, self._pure, self.operations, self.values
        while todo:
            value = todo.pop()
            op = pure.get(value)
            if op is None:
                self._follow(value)
            elif op not in operations:
                operations.add(op)
                for v in op.operands:
                    if v not in values:
                        values.add(v)
                        todo.append(v)

    def _need(self, value: Value) -> None:
        if value not in self.values:
            self.values.add(value)
            self._todo.append(value)

    def _follow(self, value: Value) -> None:
        """Marks what a value is made of that no plain operation made."""
        made = self._maker.get(value)
        if made is not None:
            self._follow_result(*made)
            return
        region, number, j = self._param[value]
        for op in self._runs.get(region, ()):
            found = self._ports[op]
            if found is not None and op in self.operations:
                self._need_slot(op, found.params[number][j])

    def _follow_result(self, op: Operation, index: int) -> None:
        self._keep(op)
        found = self._ports[op]
        if found is None:
            return
        for region, targets in zip(bodies(op), found.results, strict=True):
            if index in targets:
                self.results.setdefault(region, set()).add(index)
                self._need(region.results[targets.index(index)])
        if index < found.carried:
            self._need_slot(op, index)

    def _need_slot(self, op: Operation, slot: int) -> None:
        if (op, slot) in self.slots:
            return
        self.slots.add((op, slot))
        self._need(op.operands[slot])
        found = self._ports[op]
        if found is not None and slot < found.carried:
            self._need(op.results[slot])

    def _keep(self, op: Operation) -> None:
        if op in self.operations:
            return
        self.operations.add(op)
        found = self._ports[op]
        if found is None:
            self._keep_whole(op)
            return
        for slot in found.control(len(op.operands)):
            self._need_slot(op, slot)
        for region, params, targets in zip(bodies(op), found.params, found.results, strict=True):
            for result, target in zip(region.results, targets, strict=True):
                if target == CONTROL:
                    self._need(result)
            for param, slot in zip(region.params, params, strict=True):
                if param in self.values:
                    self._need_slot(op, slot)

    def _keep_whole(self, op: Operation) -> None:
        for value in (*op.operands, *(v for region in op.regions for v in region.results)):
            self._need(value)
        cell = op.attributes.get("cell")
        if cell is not None and op.effects[cell] & (Effect.READ | Effect.TAKE):
            self._observe(cell)

    def _keep_effect(self, op: Operation) -> None:
        """Keeps an operation for what it does, and with it all that it stands in."""
        self._keep(op)
        region = self._home[op]
        if region not in self._effectful:
            self._effectful.add(region)
            for runner in self._runs.get(region, ()):
                self._keep_effect(runner)

    def _observe(self, cell: Cell) -> None:
        if cell not in self._observed:
            self._observed.add(cell)
            for op in self._changers.get(cell, ()):
                self._keep_effect(op)

    def sees(self, cell: Cell) -> bool:
        """Whether a needed operation looks at the cell, or the outside may."""
        return cell in self._observed or cell in self._outer


class _Sweep:
    """Rebuilds functions from what was marked, callees first."""

    def __init__(self, marking: _Marking) -> None:
        self._marked = marking
        self.done: dict[Function, Function] = {}

    def function(self, function: Function) -> None:
        body = function.body
        kept = [p in self._marked.values for p in body.params]
        wanted = self._marked.results.get(body, set())
        made = self._region(body, kept, [i in wanted for i in range(len(body.results))])
        facts = function.attributes
        if "known" in facts and not all(kept):
            facts = {**facts, "known": sum(kept[: facts["known"]])}
        self.done[function] = function if made is body else replace(function, body=made, attributes=facts)

    def _region(self, region: Region, params: Sequence[bool], results: Sequence[bool]) -> Region:
        return with_body(
            region,
            [self._operation(op) for op in region.operations if op in self._marked.operations],
            _only(region.results, results),
            _only(region.params, params),
            [cell for cell in region.locals if self._marked.sees(cell)],
        )

    def _operation(self, op: Operation) -> Operation:
        if op.opdef.pure:
            return op
        found = ports(op)
        if found is None and not op.regions:
            return op
        if found is None:
            everything = [
                self._region(r, [True] * len(r.params), [True] * len(r.results)) for r in op.regions
            ]
            return with_parts(op, regions=everything)
        slots = [(op, i) in self._marked.slots for i in range(len(op.operands))]
        wanted = self._wanted(op)
        regions = [
            self._region(r, [slots[i] for i in params], [i == CONTROL or wanted[i] for i in targets])
            for r, params, targets in zip(op.regions, found.params, found.results, strict=False)
        ]
        return with_parts(
            op,
            _only(op.operands, slots),
            regions,
            self._attributes(op, slots),
            _only(op.results, wanted),
        )

    def _wanted(self, op: Operation) -> list[bool]:
        callee = op.attributes.get("callee")
        if callee is None:
            return [r in self._marked.values for r in op.results]
        return [i in self._marked.results.get(callee.body, ()) for i in range(len(op.results))]

    def _attributes(self, op: Operation, slots: Sequence[bool]) -> Mapping[str, Any]:
        changed: dict[str, Any] = {**segment_lengths(op, slots)}
        if "callee" in op.attributes:
            changed["callee"] = self.done[op.attributes["callee"]]
        if all(op.attributes[name] == value for name, value in changed.items()):
            return op.attributes
        return {**op.attributes, **changed}


def _only(values: Sequence[Value], flags: Sequence[bool]) -> Sequence[Value]:
    return [v for v, kept in zip(values, flags, strict=True) if kept]
