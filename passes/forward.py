"""Forward mode: the primal program with its tangents beside it. Nothing is saved, so loops need no bound."""

from collections.abc import Sequence
from typing import NamedTuple

from stategrad.ir import Function, Operation, Region, StructuredOp, Value

from .activity import Cells, Flags
from .demand import Everything
from .halves import LinearizeContext
from .linearize import Linearizer
from .names import Fresh
from .routing import Together


class Twin(NamedTuple):
    """A function that takes the tangents of its active parameters after the parameters, and returns those of
    the results listed in `results` after the results.
    """

    function: Function
    results: tuple[int, ...]
    exit: Cells


class Forwarder(Linearizer):
    """One run of forward mode: each function gets one twin for each pattern of activity."""

    def __init__(self, names: Fresh, demand: Everything) -> None:
        super().__init__(names, demand)
        self._twins: dict[tuple[Function, Flags, Cells], Twin] = {}

    def region(self, region: Region, active: Flags, cells: Cells) -> "ForwardContext":
        """The region with its tangents, still open."""
        made = ForwardContext(self, region, active, cells)
        made.run_all(region)
        return made

    def twin(self, function: Function, active: Flags, cells: Cells) -> Twin:
        """The function with its tangents for this pattern of activity."""
        key = function, active, cells
        found = self._twins.get(key)
        if found is None:
            found = self._twins[key] = self._make(function, active, cells)
        return found

    def _make(self, function: Function, active: Flags, cells: Cells) -> Twin:
        inner = self.region(self.body(function), active, cells)
        live = [i for i, t in enumerate(inner.result_tangents) if t is not None]
        params = [*inner.params, *(p for p in inner.tangent_params if p is not None)]
        region = inner.whole(params, [*inner.results, *map(inner.result_tangent, live)])
        name = self.names.functions.fresh(f"{function.name}.jvp")
        return Twin(Function(name, region, {}, function.location), tuple(live), inner.exit)


class ForwardContext(LinearizeContext):
    """A region with its tangents in the making: what the `forward` rules work with."""

    by = "jvp"

    def __init__(self, run: Forwarder, region: Region, active: Flags, cells: Cells) -> None:
        super().__init__(run, region, active, cells, Together())
        self._forwarder = run

    def _rule(self, rules: StructuredOp, op: Operation) -> None:
        rules.forward(self, op)

    def _checked(self, op: Operation, tangent: Value) -> Value:
        return tangent

    def twin(self, callee: Function, active: Flags, cells: Cells) -> Twin:
        """A callee with its tangents."""
        return self._forwarder.twin(callee, active, cells)

    def result_tangent(self, index: int) -> Value:
        """The tangent of a result, made where there is none."""
        return self.result_tangents[index] or self.b.zeros(self.results[index].type)

    def whole(self, params: Sequence[Value], results: Sequence[Value]) -> Region:
        """The finished region."""
        self.b.location = self._location
        return self.b.region(params, results)
