"""The two builders of linearize: what depends on a tangent goes to the linear half, all else to the primal
half.

A derivative rule writes both through one builder and need not know which half an operation belongs to.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stategrad.ir import UNKNOWN, Builder, Location, OpDef, Operation, Type, Value


class PushingBuilder(Builder):
    """Builds a program and what becomes of tangents in it."""

    def push(
        self, op: Operation, operands: Sequence[Value], tangents: Sequence[Value | None]
    ) -> tuple[Sequence[Value], Sequence[Value | None]]:
        """Emits `op` on `operands`, of which some have tangents; gives the results and their tangents."""
        return op.opdef.push_of(self, op, operands, tangents)


class LinearHalf(Builder):
    """Builds the linear half. Primal values that it is given become parameters (`residuals`) at their first
    use; operations without operands, such as constants, are made again instead.
    """

    def __init__(self, sources: Mapping[Value, Operation], location: Location = UNKNOWN) -> None:
        super().__init__(location)
        self.residuals: dict[Value, Value] = {}
        self.tangents: set[Value] = set()
        self._sources = sources
        self._here: dict[Value, Value] = {}

    def param(self, type: Type, name: str = "") -> Value:
        value = super().param(type, name)
        self.tangents.add(value)
        return value

    def use(self, value: Value) -> Value:
        """What stands for a tangent or a primal value in this half."""
        if value in self.tangents:
            return value
        found = self._here.get(value)
        if found is None:
            source = self._sources.get(value)
            if source is None:
                found = self.residuals[value] = Value(value.type, value.name)
            else:
                found = self._again(source)[source.results.index(value)]
            self._here[value] = found
        return found

    def _again(self, source: Operation) -> tuple[Value, ...]:
        """Makes what needs no operands again; it depends on no tangent."""
        types, names = [r.type for r in source.results], [r.name for r in source.results]
        return Builder.make(self, source.opdef, (), types, source.attributes, (), names, source.location)

    def make(self, opdef: OpDef, operands: Sequence[Value], *rest: Any) -> tuple[Value, ...]:
        results = super().make(opdef, list(map(self.use, operands)), *rest)
        self.tangents.update(results)
        return results


class RoutingBuilder(PushingBuilder):
    """Builds the primal half, and passes on to `linear` every operation that has a tangent among its
    operands.

    What rules emit without operands waits until the primal half needs it: most of it only the linear half
    does.
    """

    def __init__(self, linear: LinearHalf | None = None) -> None:
        self.sources: dict[Value, Operation] = {}
        self.linear = linear or LinearHalf(self.sources)
        super().__init__()
        self._waiting: dict[Value, Operation] = {}

    @property
    def location(self) -> Location:
        """Where what follows comes from, in both halves."""
        return self.linear.location

    @location.setter
    def location(self, location: Location) -> None:
        self.linear.location = location

    def make(self, opdef: OpDef, operands: Sequence[Value], *rest: Any) -> tuple[Value, ...]:
        if self.linear.tangents.isdisjoint(operands):
            return super().make(opdef, operands, *rest)
        return self.linear.make(opdef, operands, *rest)

    def append(self, op: Operation) -> tuple[Value, ...]:
        """Takes an operation made by a rule."""
        if not is_source(op):
            return self.place(op)
        for value in op.results:
            self.sources[value] = self._waiting[value] = op
        return op.results

    def place(self, op: Operation) -> tuple[Value, ...]:
        """Takes an operation of the primal half, after what it waits for."""
        for value in op.operands:
            if value in self._waiting:
                self.settle(value)
        if is_source(op):
            self.sources.update(dict.fromkeys(op.results, op))
        self.operations.append(op)
        return op.results

    def settle(self, value: Value) -> Value:
        """A value that the primal half is about to use."""
        source = self._waiting.get(value)
        if source is not None:
            for result in source.results:
                del self._waiting[result]
            self.operations.append(source)
        return value


class Together(LinearHalf, PushingBuilder):
    """Builds both halves as one program: the builder of forward mode. Nothing is a residual."""

    def __init__(self) -> None:
        super().__init__({})
        self.sources: Mapping[Value, Operation] = {}

    @property
    def linear(self) -> LinearHalf:
        """The builder of tangents: this one."""
        return self

    def use(self, value: Value) -> Value:
        return value

    def place(self, op: Operation) -> tuple[Value, ...]:
        """Takes an operation of the primal program."""
        return self.append(op)

    def settle(self, value: Value) -> Value:
        """A value that is about to be used."""
        return value


def is_source(op: Operation) -> bool:
    """Whether making it again is free: a row without operands, such as a constant."""
    return op.opdef.pure and not op.operands
