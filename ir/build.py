"""The one way to make operations: a builder runs the type rule and gives every result its type."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from .core import NO_ATTRIBUTES, Cell, Function, Operation, Region, Type, Value
from .dtypes import DType
from .errors import IRTypeError
from .location import UNKNOWN, Derived, Location
from .opdef import OpDef, lookup


class Builder:
    """Collects the operations and local cells of one region.

    Every row is a method: `b.mul(x, y)`, `b.reduce_sum(x, axes=(0,))`, `b.read(cell=c)`. A row with one
    result gives that `Value`, one with none gives (), others a tuple. New operations get `location`; set it
    (or use `at`) before emitting.
    """

    def __init__(self, location: Location = UNKNOWN) -> None:
        self.operations: list[Operation] = []
        self.locals: list[Cell] = []
        self.location = location

    def param(self, type: Type, name: str = "") -> Value:
        """A new value for a region header."""
        return Value(type, name)

    def at(self, by: str, location: Location) -> "Builder":
        """Sets the location of what follows: derived by the pass `by` from `location`."""
        self.location = Derived(by, location)
        return self

    def emit(
        self,
        opdef: OpDef,
        operands: Sequence[Value],
        attributes: Mapping[str, Any] = NO_ATTRIBUTES,
        regions: Sequence[Region] = (),
        names: Sequence[str] = (),
        location: Location | None = None,
    ) -> tuple[Value, ...]:
        """Appends an operation whose result types follow from its row.

        Raises:
            IRTypeError: the row does not accept these operands, attributes or regions.
        """
        types = opdef.inferred([v.type for v in operands], attributes, regions)
        return self.make(opdef, operands, types, attributes, regions, names, location)

    def make(
        self,
        opdef: OpDef,
        operands: Sequence[Value],
        types: Sequence[Type],
        attributes: Mapping[str, Any] = NO_ATTRIBUTES,
        regions: Sequence[Region] = (),
        names: Sequence[str] = (),
        location: Location | None = None,
    ) -> tuple[Value, ...]:
        """Appends an operation whose result types are known. All new operations come through here."""
        if len(types) == 1:
            results: tuple[Value, ...] = (Value(types[0], names[0] if names else ""),)
        elif len(names) == len(types):
            results = tuple([Value(t, n) for t, n in zip(types, names, strict=True)])
        else:
            results = tuple([Value(t) for t in types])
        where = location or self.location
        return self.append(Operation(opdef, tuple(operands), results, attributes, tuple(regions), where))

    def append(self, op: Operation) -> tuple[Value, ...]:
        """Takes a finished operation; gives its results."""
        self.operations.append(op)
        return op.results

    def again(self, op: Operation, operands: Sequence[Value]) -> tuple[Value, ...]:
        """Appends an operation like `op`, which has no regions, on operands of the types that it takes."""
        return self.make(op.opdef, operands, [r.type for r in op.results], op.attributes)

    def copy(self, op: Operation, operands: Sequence[Value]) -> tuple[Value, ...]:
        """Appends `op` on other operands of the same types, with new results and, inside its regions, new
        values.
        """
        types, names = [r.type for r in op.results], [r.name for r in op.results]
        regions = [clone_region(r) for r in op.regions]
        return self.make(op.opdef, operands, types, op.attributes, regions, names, op.location)

    def call_row(self, name: str, *operands: Value, **attributes: Any) -> Any:
        """The row called `name` on these operands: what `b.name(...)` does."""
        opdef = lookup(name)
        if opdef is None:
            raise IRTypeError(f"there is no operation {name!r}")
        return _row_method(opdef)(self, *operands, **attributes)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        opdef = None if name.startswith("_") else lookup(name)
        if opdef is None:
            raise AttributeError(f"{type(self).__name__} has no attribute, and the IR no operation, {name!r}")
        method = _row_method(opdef)
        setattr(Builder, name, method)  # from now on it is found without a search
        return partial(method, self)

    def constant(self, value: Any, type: Type, name: str = "") -> Value:
        """A constant; a scalar `value` fills the whole shape."""
        opdef = lookup("constant")
        assert opdef is not None
        attributes = {"value": value, "type": type}
        if getattr(value, "shape", None) != ():  # a scalar of NumPy's fits any type
            opdef.infer((), attributes, ())
        return self.make(opdef, (), (type,), attributes, (), (name,))[0]

    def zeros(self, type: Type) -> Value:
        """The zero of a type."""
        return self.constant(_zero_scalar(type.dtype), type)

    def filler(self, type: Type) -> Value:
        """A value of the type that nothing will look at: zero, or a constant for keys, which have no zero."""
        return self.zeros(type) if type.dtype.numpy is not None else self.constant(0, type)

    def region(self, params: Iterable[Value], results: Iterable[Value]) -> Region:
        """The finished region."""
        return Region(
            tuple(params), tuple(self.operations), tuple(results), tuple(self.locals), self.location
        )

    def function(
        self,
        name: str,
        params: Iterable[Value],
        results: Iterable[Value],
        location: Location = UNKNOWN,
        **facts: Any,
    ) -> Function:
        """The finished function; `facts` become its attributes."""
        return Function(name, self.region(params, results), facts, location)


def _row_method(opdef: OpDef) -> Callable[..., Any]:
    def emit_row(self: Builder, /, *operands: Value, **attributes: Any) -> Any:
        types = opdef.inferred([v.type for v in operands], attributes)
        results = self.make(opdef, operands, types, attributes)
        return results[0] if len(results) == 1 else results

    return emit_row


@cache
def _zero_scalar(dtype: DType) -> Any:
    if dtype.numpy is None:
        raise IRTypeError(f"{dtype}[] has no zero")
    return np.zeros((), dtype.numpy)[()]


def clone_region(region: Region) -> Region:
    """The same region made of new values, so that it may stand in a second place. Local cells are renewed
    too.
    """
    cells = {c: Cell(c.name, c.type, c.role, c.of) for c in region.locals}
    return _clone(region, {}, cells)


def _clone(region: Region, env: dict[Value, Value], cells: dict[Cell, Cell]) -> Region:
    params = tuple(_renew(v, env) for v in region.params)
    operations: list[Operation] = []
    for op in region.operations:
        operands = tuple(env[v] for v in op.operands)
        inner = []
        for r in op.regions:
            cells.update((c, Cell(c.name, c.type, c.role, c.of)) for c in r.locals)
            inner.append(_clone(r, env, cells))
        attributes = op.attributes
        cell = attributes.get("cell")
        if cell in cells:
            attributes = {**attributes, "cell": cells[cell]}
        results = tuple(_renew(v, env) for v in op.results)
        operations.append(Operation(op.opdef, operands, results, attributes, tuple(inner), op.location))
    results = tuple(env[v] for v in region.results)
    local = tuple(cells[c] for c in region.locals)
    return Region(params, tuple(operations), results, local, region.location)


def _renew(value: Value, env: dict[Value, Value]) -> Value:
    env[value] = made = Value(value.type, value.name)
    return made
