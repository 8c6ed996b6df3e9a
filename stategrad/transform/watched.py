"""Calls that look at what they would return or commit before they do: `debug_nan`."""

from collections.abc import Sequence
from typing import Any

import jax

from stategrad.arguments import leaf_paths
from stategrad.errors import NonFiniteError
from stategrad.nonfinite import Trip
from stategrad.trace import Traced

from .compiled import Compiled
from .plan import Plan
from .staging import Derived


class WatchedPlan(Plan):
    """A plan whose program says whether all that it gives is finite; nothing is donated."""

    def __init__(self, compiled: Compiled, traced: Traced, derived: Derived) -> None:
        super().__init__(compiled, traced, derived)
        self.keeps = False  # what is written is looked at first
        self._name, self._reverse = traced.function.name, derived.reverse
        self._leaf_names = [f"the State {cell.name!r}" for cell in traced.leaves]
        closed_over = ["a literal or an array that the function closes over"] * len(traced.captured)
        arguments = [f"argument {name!r}" for name in traced.arguments]
        self._operand_names = [*(self._leaf_names[i] for i in compiled.inputs), *closed_over, *arguments]
        results = leaf_paths(traced.tree, "the result")
        retyped = [
            f"the new value of the State {r.state.name!r}" for r in traced.retyped for _ in r.held.types
        ]
        written = [f"the new value of {self._leaf_names[i]}" for i in compiled.outputs]
        self._result_names = [*results, *retyped, *derived.derivatives, *written]

    def call(self, args: Any, kwargs: Any) -> Any:
        """As every plan.

        Raises:
            NonFiniteError: something is not finite; nothing is committed.
        """
        _, given, read = self.gathered()
        written, (*results, finite) = self.jitted([given], [args, kwargs, *read])
        if not finite:
            raise self._tripped(
                read[0] if read else [], jax.tree.leaves((args, kwargs)), [*results, *written]
            )
        return self.commit(written, results)

    def _tripped(self, read: Sequence[Any], arguments: Sequence[Any], found: Sequence[Any]) -> NonFiniteError:
        compiled = self.compiled
        values = dict(zip(compiled.read, read, strict=False))
        closed_over = read[len(compiled.read) :]
        operands = [*(values[i] for i in compiled.inputs), *closed_over, *arguments]
        trip = Trip.of(self._name, self._result_names, found, reverse=self._reverse)
        return trip.explained(compiled.program.function, operands, self._operand_names)
