"""The objects of the IR. They are frozen, compared by identity, and carry no use lists: a pass builds anew.

Module    state cells and functions
Function  a name and a body; its effects are its body's
Region    one block: parameters, operations, results, and the local cells it owns
Operation a row, operands, attributes, regions, results, a location
Value     what an operation or a region header binds
Cell      a named place that is read and written: the user's state, or a shadow of one
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass, field
from enum import IntFlag
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import IRTypeError
from .location import UNKNOWN, Location
from .types import Type

if TYPE_CHECKING:
    from .opdef import OpDef


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
PURE: tuple[Mapping["Cell", Effect], bool] = (NO_EFFECTS, False)
"""No effects on cells, and none outside the program."""
NO_ATTRIBUTES: Mapping[str, Any] = {}


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


class _Frozen:
    """What is set once, when the object is made. (Frozen dataclasses refuse too, but take four times as long
    to make, and a compiler makes many operations.)
    """

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}: passes rebuild, they change nothing")


_new = object.__new__
_set = object.__setattr__


class _Fields:
    """An operation while it is made; then it gets the class that refuses."""

    __slots__ = (
        "attributes",
        "effects",
        "external",
        "location",
        "opdef",
        "operands",
        "regions",
        "results",
    )
    opdef: "OpDef"
    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    attributes: Mapping[str, Any]
    regions: tuple["Region", ...]
    location: Location
    effects: Mapping[Cell, Effect]
    external: bool


class Operation(_Frozen, _Fields):
    """One application of a row. `effects` is worked out when the object is made."""

    __slots__ = ()

    def __new__(
        cls,
        opdef: "OpDef",
        operands: tuple[Value, ...],
        results: tuple[Value, ...],
        attributes: Mapping[str, Any] = NO_ATTRIBUTES,
        regions: tuple["Region", ...] = (),
        location: Location = UNKNOWN,
    ) -> "Operation":
        made: Any = _new(_Fields)
        made.opdef = opdef
        made.operands = operands
        made.results = results
        made.attributes = attributes
        made.regions = regions
        made.location = location
        made.effects, made.external = PURE if opdef.pure else opdef.effects_of(made)
        made.__class__ = cls
        return made

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


class Region(_Frozen):
    """One block, isolated from above: it sees its parameters, its own values, and cells. `results` are what
    it yields.

    `locals` are cells that are zero at each entry and gone at the end. `effects`, `external`, `callees` (the
    functions that it calls, its inner regions included) and `straight` (neither inner regions nor calls) are
    worked out when the object is made.
    """

    __slots__ = (
        "callees",
        "effects",
        "external",
        "locals",
        "location",
        "operations",
        "params",
        "results",
        "straight",
    )
    params: tuple[Value, ...]
    operations: tuple[Operation, ...]
    results: tuple[Value, ...]
    locals: tuple[Cell, ...]
    location: Location
    effects: Mapping[Cell, Effect]
    external: bool
    callees: tuple["Function", ...]
    straight: bool

    def __init__(
        self,
        params: tuple[Value, ...],
        operations: tuple[Operation, ...],
        results: tuple[Value, ...],
        locals: tuple[Cell, ...] = (),
        location: Location = UNKNOWN,
    ) -> None:
        _set(self, "params", params)
        _set(self, "operations", operations)
        _set(self, "results", results)
        _set(self, "locals", locals)
        _set(self, "location", location)
        effects: dict[Cell, Effect] = {}
        callees: dict[Function, None] = {}
        external, straight = False, True
        for op in operations:
            if op.opdef.pure:
                continue
            external = external or op.external
            straight = straight and not op.regions
            callees.update(dict.fromkeys(_callees(op)))
            for cell, effect in op.effects.items():
                known = effects.get(cell)
                # Combining flags is slow, and most cells have one kind of effect.
                effects[cell] = effect if known is None or known == effect else known | effect
        for cell in locals:
            effects.pop(cell, None)
        _set(self, "effects", effects or NO_EFFECTS)
        _set(self, "external", external)
        _set(self, "callees", tuple(callees))
        _set(self, "straight", straight and not callees)

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


def _callees(op: Operation) -> Iterator[Function]:
    callee = op.attributes.get("callee")
    if isinstance(callee, Function):
        yield callee
    for region in op.regions:
        yield from region.callees


def reachable(function: Function, seen: set[Function] | None = None) -> Iterator[Function]:
    """`function` and all that it calls, callees first, each once."""
    seen = set() if seen is None else seen
    if function not in seen:
        seen.add(function)
        for callee in function.body.callees:
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
