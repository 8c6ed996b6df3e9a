"""Type rules, asked about operations that nobody has checked yet: texts and programs under verification."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .core import Operation, Region, Type, Value
from .errors import IRTypeError
from .location import Location
from .opaque import Opaque
from .opdef import OpDef


def result_types(
    opdef: OpDef,
    types: Sequence[Type],
    attributes: Mapping[str, Any],
    regions: Sequence[Region],
    declared: tuple[Type, ...],
) -> tuple[Type, ...]:
    """The types that the row's rule gives; the declared ones where an attribute is an `Opaque`.

    Raises:
        IRTypeError: the rule refuses, in whatever way.
    """
    if _has_opaque(attributes.values()):
        return declared
    try:
        return tuple(opdef.infer(types, attributes, regions))
    except IRTypeError:
        raise
    except Exception as e:  # a rule may fail in any way on attributes that its author did not think of
        raise IRTypeError(f"{opdef.name}: {type(e).__name__}: {e}") from None


def make_operation(
    opdef: OpDef,
    operands: tuple[Value, ...],
    results: tuple[Value, ...],
    attributes: Mapping[str, Any],
    regions: tuple[Region, ...],
    location: Location,
) -> Operation:
    """The operation, whose effects are worked out now.

    Raises:
        IRTypeError: they cannot be, because attributes are wrong that no type rule looked at.
    """
    try:
        return Operation(opdef, operands, results, attributes, regions, location)
    except Exception as e:
        raise IRTypeError(f"{opdef.name}: its effects are unknown: {type(e).__name__}: {e}") from None


def _has_opaque(values: Iterable[Any]) -> bool:
    return any(type(v) is Opaque or (type(v) is tuple and _has_opaque(v)) for v in values)
