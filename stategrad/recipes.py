"""What table entries made before, to be made again without asking: import is on the way of every trace."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stategrad.ir import Builder, OpDef, Operation, Type, Value

_KEPT = 4096


class Step(NamedTuple):
    """One operation. Operands are numbered: those of the equation, then the results of earlier steps."""

    opdef: OpDef
    operands: tuple[int, ...]
    attributes: Mapping[str, Any]
    results: tuple[Type, ...]


class Recipe(NamedTuple):
    """The operations that an equation became."""

    steps: tuple[Step, ...]
    results: tuple[int, ...]
    types: tuple[Type, ...]

    def fits(self, variables: Sequence[Any]) -> bool:
        """Whether it gives values of the types that these variables of JAX have."""
        for variable, of in zip(variables, self.types, strict=True):
            aval = variable.aval
            if aval.shape != of.shape or aval.dtype != of.dtype.numpy:
                return False
        return True

    def follow(self, b: Builder, operands: Sequence[Value]) -> list[Value]:
        """Emits the operations on other operands; gives the results."""
        values, operations, location = list(operands), b.operations, b.location
        for opdef, used, attributes, types in self.steps:
            name = opdef.name if used else ""
            made = tuple([Value(t, name) for t in types])
            operations.append(
                Operation(opdef, tuple([values[i] for i in used]), made, attributes, (), location)
            )
            values += made
        return [values[i] for i in self.results]


class Recipes:
    """Recipes by primitive, parameters and operand types."""

    def __init__(self) -> None:
        self._found: dict[Any, Recipe] = {}

    def find(self, equation: Any, operands: Sequence[Value]) -> tuple[Any, Recipe | None]:
        """A key for an equation, None where parameters have no hash, and the recipe if there is one."""
        params = equation.params
        sign = repr(params["fill_value"]) if "fill_value" in params else None  # 0.0 equals -0.0
        key = equation.primitive, tuple([v.type for v in operands]), tuple(params.items()), sign
        try:
            return key, self._found.get(key)
        except TypeError:
            return None, None

    def keep(
        self, key: Any, operands: Sequence[Value], operations: Sequence[Operation], results: Sequence[Value]
    ) -> None:
        """Notes what an equation became, if the same can be done for other operands."""
        numbers = {v: i for i, v in enumerate(operands)}
        if key is None or len(numbers) < len(operands) or any(op.regions for op in operations):
            return
        steps: list[Step] = []
        for op in operations:
            used = tuple(numbers.get(v, -1) for v in op.operands)
            if -1 in used:
                return
            steps.append(Step(op.opdef, used, op.attributes, tuple(v.type for v in op.results)))
            for v in op.results:
                numbers[v] = len(numbers)
        if len(self._found) >= _KEPT:
            self._found.clear()
        types = tuple(v.type for v in results)
        self._found[key] = Recipe(tuple(steps), tuple(numbers[v] for v in results), types)
