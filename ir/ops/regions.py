"""What the structured operations share: checks of signatures and small helpers for operands in groups."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from ..core import Cell, Operation, Region, Type
from ..errors import IRTypeError

Flags = tuple[bool, ...]


def shown(types: Sequence[Type]) -> str:
    """Types as an error message lists them."""
    return f"({', '.join(map(str, types))})"


def check_types(what: str, given: Sequence[Type], expected: Sequence[Type]) -> None:
    """Raises IRTypeError unless the types are the expected ones."""
    if list(given) != list(expected):
        raise IRTypeError(f"{what}: given {shown(given)}, expected {shown(expected)}")


def check_attributes(name: str, attributes: Mapping[str, Any], expected: Mapping[str, type]) -> None:
    """Raises IRTypeError unless exactly the expected attributes are there, of the expected Python types."""
    if attributes.keys() != expected.keys():
        wanted, given = ", ".join(expected), ", ".join(attributes)
        raise IRTypeError(f"{name} takes the attributes {{{wanted}}}, not {{{given}}}")
    for key, kind in expected.items():
        value = attributes[key]
        if type(value) is not kind:
            raise IRTypeError(
                f"{name}: the attribute {key} is {value!r}, expected a value of type {kind.__name__}"
            )
        if kind is int and value < 0:
            raise IRTypeError(f"{name}: the attribute {key} is {value}, expected 0 or more")


def check_regions(name: str, regions: Sequence[Region], expected: int) -> None:
    """Raises IRTypeError unless there are that many regions."""
    if len(regions) != expected:
        raise IRTypeError(f"{name} has {len(regions)} regions, expected {expected}")


def param_types(region: Region) -> list[Type]:
    """The types of a region's parameters."""
    return [v.type for v in region.params]


def result_types(region: Region) -> list[Type]:
    """The types of what a region yields."""
    return [v.type for v in region.results]


def changed_cells(op: Operation) -> frozenset[Cell]:
    """The cells that may hold another value after an operation."""
    return frozenset(c for c, e in op.effects.items() if e.changes)


def shared_slots(wanted: Sequence[Sequence[Hashable]]) -> tuple[list[Any], list[list[int]]]:
    """Slots for what each branch wants, two branches sharing one wherever their keys agree.

    Gives the key of each slot, and for each branch the slot of each thing it wants, no slot twice.
    """
    slots: list[Any] = []
    places: list[list[int]] = []
    for keys in wanted:
        free: dict[Hashable, list[int]] = {}
        for i in reversed(range(len(slots))):
            free.setdefault(slots[i], []).append(i)
        mine: list[int] = []
        for key in keys:
            if free.get(key):
                mine.append(free[key].pop())
            else:
                mine.append(len(slots))
                slots.append(key)
        places.append(mine)
    return slots, places
