"""The linear half of a `remat`: the primal values that it needs are computed again inside."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from stategrad.ir import Cell, Function, Operation, Region, Value, clone_region

from .thread_state import ThreadContext, Threader

if TYPE_CHECKING:
    from .halves import LinearizeContext


class Again(NamedTuple):
    """A region whose parameters are: those of the primal half listed in `params`, the values that `cells`
    hold at its entry, and the tangents.
    """

    region: Region
    params: list[int]
    cells: list[Cell]


class Silencer:
    """Makes twins of operations and functions without the prints in them: what is computed again has printed.

    Args:
        rename: the name of the twin of a function.
    """

    def __init__(self, rename: Callable[[str], str]) -> None:
        self._rename = rename
        self._functions: dict[Function, Function] = {}

    def operation(self, op: Operation) -> Operation:
        """The same without prints in its regions and in what it calls; its own stay."""
        if not op.external:
            return op
        attributes, callee = op.attributes, op.attributes.get("callee")
        if isinstance(callee, Function):
            attributes = {**attributes, "callee": self._function(callee)}
        regions = tuple(map(self._region, op.regions))
        return Operation(op.opdef, op.operands, op.results, attributes, regions, op.location)

    def _region(self, r: Region) -> Region:
        inside = tuple(self.operation(op) for op in r.operations if _matters(op))
        return Region(r.params, inside, r.results, r.locals, r.location)

    def _function(self, function: Function) -> Function:
        found = self._functions.get(function)
        if found is None:
            body = self._region(clone_region(function.body))
            found = Function(self._rename(function.name), body, function.attributes, function.location)
            self._functions[function] = found
        return found


def _matters(op: Operation) -> bool:
    """Whether it does more than to print."""
    return bool(op.results or op.effects or not op.external)


def recompute(halves: "LinearizeContext", threader: Threader, silencer: Silencer) -> Again:
    """The primal half with its cells threaded, entry values in and changes nowhere, then the linear half."""
    residuals = list(halves.residuals)
    primal = halves.primal_region(residuals)
    linear = halves.linear_region((), [i for i, t in enumerate(halves.result_tangents) if t is not None])

    cells = list(primal.effects)
    again = ThreadContext(threader)
    params = [Value(v.type, v.name) for v in primal.params]
    entry = [Value(c.type, c.name) for c in cells]
    again.hold(cells, entry)
    values = again.inline(primal, params)[len(halves.results) :]

    env = {halves.residual(v): w for v, w in zip(residuals, values, strict=True)}
    operations = [_with_operands(op, env) for op in linear.operations]
    results = [env.get(v, v) for v in linear.results]
    needed = {v for op in operations for v in op.operands}.union(results)
    kept = [silencer.operation(op) for op in _needed(again.b.operations, needed)]
    region = Region(
        (
            *(v for v in (*params, *entry) if v in needed),
            *(p for p in halves.tangent_params if p is not None),
        ),
        (*kept, *operations),
        tuple(results),
        linear.locals,
        linear.location,
    )
    return Again(
        region,
        [i for i, v in enumerate(params) if v in needed],
        [c for c, v in zip(cells, entry, strict=True) if v in needed],
    )


def _needed(operations: Sequence[Operation], needed: set[Value]) -> list[Operation]:
    """The operations that what is needed depends on; `needed` grows by their operands."""
    kept: list[Operation] = []
    for op in reversed(operations):
        if not needed.isdisjoint(op.results):
            needed.update(op.operands)
            kept.append(op)
    return kept[::-1]


def _with_operands(op: Operation, env: Mapping[Value, Value]) -> Operation:
    """`op` on other operands: the one it replaces is given up, so results and regions move over."""
    operands = tuple(env.get(v, v) for v in op.operands)
    return Operation(op.opdef, operands, op.results, op.attributes, op.regions, op.location)
