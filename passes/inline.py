"""Inlining: the body of a function in the place of its call."""

from collections import Counter
from collections.abc import Iterable

from stategrad.ir import Function, Module, Operation, Region, clone_region, reachable, walk
from stategrad.ir.record import record

from .pipeline import Pass, register_pass
from .rebuild import Rewriter, Scope, with_functions
from .spec import FunctionName


@register_pass
@record
class Inline(Pass):
    """Puts functions that are called once, or have at most `size` operations, in the place of their calls.

    They leave the module, but for those named in `keep`. Local cells of an inlined body become new ones of
    the region around it.
    """

    name = "inline"
    size: int = 4
    keep: tuple[FunctionName, ...] = ()

    def run(self, module: Module) -> Module:
        rewriter = _Inline(_small(module.functions.values(), self.size))
        gone = {f.name for f in rewriter.inlined}.difference(self.keep)
        kept = {name: f for name, f in module.functions.items() if name not in gone}
        return with_functions(module, {name: rewriter.function(f) for name, f in kept.items()})


def inline_function(function: Function, size: int = 4) -> Function:
    """`function` with the functions inlined that it calls once, directly or not, or that have at most `size`
    operations; the same object if there are none.
    """
    return _Inline(_small(reachable(function), size)).function(function)


def inline_functions(function: Function, those: Iterable[Function]) -> Function:
    """`function` with the bodies of `those` in the place of all their calls; the same object if there are
    none.
    """
    return _Inline(set(those)).function(function)


def _small(functions: Iterable[Function], size: int) -> set[Function]:
    """What is called once, or has at most `size` operations."""
    calls = Counter(
        op.attributes["callee"] for f in functions for op in walk(f.body) if "callee" in op.attributes
    )
    return {f for f, n in calls.items() if n == 1 or _is_at_most(f.body, size)}


class _Inline(Rewriter):
    def __init__(self, inlined: set[Function]) -> None:
        super().__init__()
        self.inlined = inlined

    def region(self, region: Region) -> Region:
        if not region.callees:
            return region
        scope = Scope(region)
        for op in region.operations:
            new = self.renew(scope, op, [self.region(r) for r in op.regions])
            if op.attributes.get("callee") in self.inlined:
                _put(scope, new)
            else:
                scope.append(new)
        return scope.finish()


def _put(scope: Scope, call: Operation) -> None:
    """The body of the called function, made of new values and local cells, in the place of the call."""
    body = clone_region(call.attributes["callee"].body)
    scope.replace(body.params, call.operands)
    scope.locals.extend(body.locals)
    for op in body.operations:
        scope.append(scope.moved(op))
    scope.replace(call.results, scope.values(body.results))


def _is_at_most(region: Region, size: int) -> bool:
    return sum(1 for _ in walk(region)) <= size
