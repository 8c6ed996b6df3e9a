"""Rebuilding programs: what the simplifying passes share.

Nothing is changed in place. An operation, region, function or module that stays the same stays the same
object, so a pass that finds nothing to do gives back what it was given.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import Any

from stategrad.ir import Builder, Cell, Function, Module, Operation, Region, Value, reachable

from .pipeline import Pass


def same(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether two sequences hold the same objects."""
    return len(some) == len(others) and all(map(is_, some, others))


def with_parts(
    op: Operation,
    operands: Sequence[Value] | None = None,
    regions: Sequence[Region] | None = None,
    attributes: Mapping[str, Any] | None = None,
    results: Sequence[Value] | None = None,
) -> Operation:
    """`op` with some parts exchanged, itself if they are the same. Result values and location stay."""
    operands = op.operands if operands is None else operands
    regions = op.regions if regions is None else regions
    attributes = op.attributes if attributes is None else attributes
    results = op.results if results is None else results
    if (
        attributes is op.attributes
        and same(operands, op.operands)
        and same(regions, op.regions)
        and same(results, op.results)
    ):
        return op
    return Operation(op.opdef, tuple(operands), tuple(results), attributes, tuple(regions), op.location)


def with_body(
    region: Region,
    operations: Sequence[Operation],
    results: Sequence[Value] | None = None,
    params: Sequence[Value] | None = None,
    cells: Sequence[Cell] | None = None,
) -> Region:
    """`region` with another body, itself if it is the same."""
    results = region.results if results is None else results
    params = region.params if params is None else params
    cells = region.locals if cells is None else cells
    if (
        same(operations, region.operations)
        and same(results, region.results)
        and same(params, region.params)
        and same(cells, region.locals)
    ):
        return region
    return Region(tuple(params), tuple(operations), tuple(results), tuple(cells), region.location)


class Scope(Builder):
    """A region that is being rebuilt: a builder that remembers what became of the old values."""

    def __init__(self, region: Region) -> None:
        super().__init__(region.location)
        self.old = region
        self.locals.extend(region.locals)
        self.env: dict[Value, Value] = {}

    def value(self, old: Value) -> Value:
        """What `old` has become; itself if nothing."""
        return self.env.get(old, old)

    def values(self, old: Iterable[Value]) -> list[Value]:
        """What the values have become."""
        return [self.env.get(v, v) for v in old]

    def replace(self, old: Iterable[Value], new: Iterable[Value]) -> None:
        """Puts `new` in the place of `old` in all that follows."""
        self.env.update(zip(old, new, strict=True))

    def moved(self, op: Operation) -> Operation:
        """`op` on what its operands have become."""
        env = self.env
        if env:
            for v in op.operands:
                if v in env:
                    return with_parts(op, self.values(op.operands))
        return op

    def finish(self) -> Region:
        """The rebuilt region; the old one if nothing changed."""
        return with_body(self.old, self.operations, self.values(self.old.results), cells=self.locals)


class Rewriter(ABC):
    """Rebuilds functions, callees first and each once. A subclass says what becomes of a region."""

    def __init__(self) -> None:
        self._done: dict[Function, Function] = {}

    @abstractmethod
    def region(self, region: Region) -> Region:
        """The rebuilt region; the same object when nothing changed."""

    def function(self, function: Function) -> Function:
        """The rebuilt function, with rebuilt callees; the same object when nothing changed."""
        for each in reachable(function):
            if each not in self._done:
                body = self.region(each.body)
                self._done[each] = each if body is each.body else replace(each, body=body)
        return self._done[function]

    def module(self, module: Module) -> Module:
        """The module of the rebuilt functions; the same object when nothing changed."""
        return with_functions(module, {name: self.function(f) for name, f in module.functions.items()})

    def renew(self, scope: Scope, op: Operation, regions: Sequence[Region] = ()) -> Operation:
        """`op` on new operands, with its callee rebuilt; its regions are those given."""
        if op.opdef.pure:
            return scope.moved(op)
        attributes = op.attributes
        callee = attributes.get("callee")
        if callee is not None and self._done[callee] is not callee:
            attributes = {**attributes, "callee": self._done[callee]}
        return with_parts(op, scope.values(op.operands), regions, attributes)


def with_functions(module: Module, functions: Mapping[str, Function]) -> Module:
    """`module` with other functions, itself if they are the same."""
    if same(list(functions.values()), list(module.functions.values())):
        return module
    return Module(module.cells, functions)


class RewritePass(Pass):
    """A pass that is a `Rewriter` applied to every function."""

    @abstractmethod
    def rewriter(self) -> Rewriter:
        """The rewriter for one run."""

    def run(self, module: Module) -> Module:
        return self.rewriter().module(module)
