"""The objects of the IR. They are frozen, compared by identity, and carry no use lists: a pass builds anew.

Module    state cells and functions
Function  a name and a body; its effects are its body's
Region    one block: parameters, operations, results, and the local cells it owns
Operation a row, operands, attributes, regions, results, a location
Value     what an operation or a region header binds
Cell      a named place that is read and written: the user's state, or a shadow of one
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, Any

import numpy as np

from .dtypes import DType, dtype, dtype_of
from .errors import IRTypeError
from .location import UNKNOWN, Location

if TYPE_CHECKING:
    from .opdef import OpDef


@dataclass(frozen=True, slots=True)
class Type:
    """An array type: element type and shape. Printed `f32[4,4]`, a scalar `f32[]`."""

    dtype: DType
    shape: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        n = 1
        for d in self.shape:
            n *= d
        return n

    @property
    def differentiable(self) -> bool:
        """Whether values of this type have tangents: real and complex numbers do, integers, booleans, keys do
        not.
        """
        return self.dtype.differentiable

    def with_shape(self, shape: Iterable[int]) -> "Type":
        return Type(self.dtype, tuple(shape))

    def with_dtype(self, to: DType) -> "Type":
        return Type(to, self.shape)

    def batched(self, size: int) -> "Type":
        """The type of `size` such arrays, stacked along a new leading axis."""
        return Type(self.dtype, (size, *self.shape))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @staticmethod
    def of(array: Any) -> "Type":
        """The type of a NumPy array or anything with a NumPy `dtype` and a `shape`."""
        return Type(dtype_of(array.dtype), tuple(array.shape))

    @staticmethod
    def parse(text: str) -> "Type":
        """The type that `str` prints: `Type.parse("f32[2,3]")`."""
        name, _, dims = text.strip().removesuffix("]").partition("[")
        return Type(dtype(name), tuple(int(d) for d in dims.split(",") if d.strip()))


class Value:
    """What an operation or a region header binds, once. `name` is a wish; the printer makes names unique."""

    __slots__ = ("name", "type")

    def __init__(self, type: Type, name: str = "") -> None:
        self.type = type
        self.name = name

    def __repr__(self) -> str:
        return f"%{self.name or '?'}: {self.type}"


class Effect(IntFlag):
    """What a program does to one cell. The four are closed under transposition."""

    READ = 1
    WRITE = 2
    ACCUMULATE = 4
    TAKE = 8

    @property
    def changes(self) -> bool:
        """Whether the cell may hold another value afterwards."""
        return self > Effect.READ


NO_EFFECTS: Mapping["Cell", Effect] = {}


@dataclass(frozen=True, eq=False, slots=True)
class Cell:
    """A place that effects name. A shadow keeps as data what it shadows: never read that out of its name.

    `of` is the cell shadowed, `role` is "" for a cell of the program, "tangent", "cotangent", "accumulator"
    or "batched" for a shadow. In text: `state $w.t: f32[4] tangent of $w`.
    """

    name: str
    type: Type
    role: str = ""
    of: "Cell | None" = None

    def __repr__(self) -> str:
        return f"${self.name}: {self.type}"


@dataclass(frozen=True, eq=False, slots=True)
class Operation:
    """One application of a row. `effects` is worked out when the object is made."""

    opdef: "OpDef"
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple["Region", ...] = ()
    location: Location = UNKNOWN
    effects: Mapping[Cell, Effect] = field(init=False)
    external: bool = field(init=False)

    def __post_init__(self) -> None:
        effects, external = self.opdef.effects_of(self)
        object.__setattr__(self, "effects", effects)
        object.__setattr__(self, "external", external)

    @property
    def name(self) -> str:
        return self.opdef.name

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    @property
    def removable(self) -> bool:
        """Whether nothing but the results would be missed: no cell changes, nothing outside the program
        happens.
        """
        return not self.external and not any(e.changes for e in self.effects.values())

    def __repr__(self) -> str:
        return f"<{self.name} {', '.join(map(repr, self.operands))} -> {', '.join(map(repr, self.results))}>"


@dataclass(frozen=True, eq=False, slots=True)
class Region:
    """One block, isolated from above: it sees its parameters, its own values, and cells. `results` are what
    it yields.

    `locals` are cells that are zero at each entry and gone at the end.
    """

    params: tuple[Value, ...]
    operations: tuple[Operation, ...]
    results: tuple[Value, ...]
    locals: tuple[Cell, ...] = ()
    location: Location = UNKNOWN
    effects: Mapping[Cell, Effect] = field(init=False)
    external: bool = field(init=False)

    def __post_init__(self) -> None:
        effects: dict[Cell, Effect] = {}
        external = False
        for op in self.operations:
            external = external or op.external
            for cell, effect in op.effects.items():
                known = effects.get(cell)
                # Combining flags is slow, and most cells have one kind of effect.
                effects[cell] = effect if known is None or known == effect else known | effect
        for cell in self.locals:
            effects.pop(cell, None)
        object.__setattr__(self, "effects", effects or NO_EFFECTS)
        object.__setattr__(self, "external", external)

    @property
    def changed(self) -> frozenset[Cell]:
        """The outer cells that may hold another value afterwards."""
        return frozenset(c for c, e in self.effects.items() if e.changes)


class _Printed:
    """What `str` shows as text. The printer is written in terms of these classes, so it makes itself known
    here.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return _PRINTERS[-1](self)


_PRINTERS: list[Callable[[Any], str]] = [repr]


def register_printer(printer: Callable[[Any], str]) -> None:
    """Makes a printer what `str` of modules and functions uses."""
    _PRINTERS.append(printer)


@dataclass(frozen=True, eq=False, slots=True)
class Function(_Printed):
    """A named body. Calls hold the function itself. `attributes` are facts that passes leave for others:
    `known` = how many leading parameters of a linear function are not linear.
    """

    name: str
    body: Region
    attributes: Mapping[str, Any] = field(default_factory=dict)
    location: Location = UNKNOWN

    @property
    def params(self) -> tuple[Value, ...]:
        return self.body.params

    @property
    def results(self) -> tuple[Value, ...]:
        return self.body.results

    @property
    def effects(self) -> Mapping[Cell, Effect]:
        return self.body.effects

    def __repr__(self) -> str:
        return f"<func @{self.name}>"


@dataclass(frozen=True, eq=False, slots=True)
class Module(_Printed):
    """State cells and functions, each by its name. Functions stand before the functions that call them."""

    cells: Mapping[str, Cell] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<module of {', '.join([f'@{name}' for name in self.functions])}>"

    @staticmethod
    def of(entries: Iterable[Function], cells: Iterable[Cell] = ()) -> "Module":
        """A module of these functions and all they call, with `cells` and every cell that they touch.

        Raises:
            ValueError: two functions or two cells have one name.
        """
        functions: dict[str, Function] = {}
        for entry in entries:
            for function in reachable(entry):
                if functions.setdefault(function.name, function) is not function:
                    raise ValueError(f"two functions have the name @{function.name}")
        named: dict[str, Cell] = {}
        touched = (cell for f in functions.values() for cell in f.effects)
        for cell in (*cells, *touched):
            if named.setdefault(cell.name, cell) is not cell:
                raise ValueError(f"two cells have the name ${cell.name}")
        return Module(named, functions)

    def replace(self, functions: Mapping[Function, Function]) -> "Module":
        """This module with some functions exchanged; the callers among the rest must already be exchanged
        too.
        """
        return Module(
            self.cells, {new.name: new for new in (functions.get(f, f) for f in self.functions.values())}
        )


def reachable(function: Function, seen: set[Function] | None = None) -> Iterator[Function]:
    """`function` and all that it calls, callees first, each once."""
    seen = set() if seen is None else seen
    if function not in seen:
        seen.add(function)
        for op in walk(function.body):
            callee = op.attributes.get("callee")
            if isinstance(callee, Function):
                yield from reachable(callee, seen)
        yield function


def walk(region: Region) -> Iterator[Operation]:
    """Every operation of a region and the regions inside it, in program order, outer before inner."""
    for op in region.operations:
        yield op
        for inner in op.regions:
            yield from walk(inner)


def zeros(type: Type) -> np.ndarray:
    """The zero of a type as a NumPy array.

    Raises:
        IRTypeError: PRNG keys have no zero.
    """
    if type.dtype.numpy is None:
        raise IRTypeError(f"{type} has no zero")
    return np.zeros(type.shape, type.dtype.numpy)


class Names:
    """Gives out names that are not taken: `fresh("w.t")` is "w.t", then "w.t1", "w.t2", …"""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def fresh(self, wish: str) -> str:
        name, n = wish, self._next.get(wish, 0)
        while name in self._taken:
            n += 1
            name = f"{wish}{n}"
        self._next[wish] = n
        self._taken.add(name)
        return name
