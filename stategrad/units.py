"""Physical units: derivatives of and by saiunit's `Quantity`, without importing saiunit.

A quantity is a pytree node with one leaf, its mantissa. Nodes are recognised by their class, and all that is
done with units goes through their own operators.
"""

from collections.abc import Sequence
from typing import Any

import jax

from stategrad.ir.record import record


@record
class Measure:
    """The unit of a leaf, and the class that joins a number and a unit to a quantity."""

    kind: type
    unit: Any


def is_quantity_class(kind: type) -> bool:
    """Whether a class is saiunit's `Quantity` or comes from it."""
    return any(c.__name__ == "Quantity" and c.__module__.split(".")[0] == "saiunit" for c in kind.__mro__)


def _is_quantity(node: Any) -> bool:
    return is_quantity_class(type(node))


def measured(tree: Any) -> tuple[Any, tuple[Measure | None, ...]]:
    """A pytree structure with leaves in place of its quantities, and the measure of each of its leaves."""
    if not _has_quantities(tree):
        return tree, (None,) * tree.num_leaves
    marked = tree.unflatten(range(tree.num_leaves))
    leaves, bare = jax.tree.flatten(marked, is_leaf=_is_quantity)
    return bare, tuple(Measure(type(x), x.unit) if _is_quantity(x) else None for x in leaves)


def _has_quantities(tree: Any) -> bool:
    node = tree.node_data()
    if node is None:
        return False
    return is_quantity_class(node[0]) or any(map(_has_quantities, tree.children()))


def unitful(measures: Sequence[Measure | None]) -> Any:
    """The first unit among the measures that is not the plain 1; None if there is none."""
    return next((m.unit for m in measures if m is not None and not m.unit.is_unitless), None)


def ratio(of: Measure | None, by: Measure | None) -> Measure | None:
    """The measure of a derivative: out-unit over in-unit."""
    if by is None:
        return of
    return Measure(by.kind, by.unit**-1) if of is None else Measure(of.kind, of.unit / by.unit)


def product(first: Measure | None, second: Measure | None) -> Measure | None:
    """The measure of a product."""
    if first is None or second is None:
        return first or second
    return Measure(first.kind, first.unit * second.unit)


def taken_apart(given: Any) -> tuple[Any, Measure | None]:
    """A number without its unit, and that."""
    return (given.mantissa, Measure(type(given), given.unit)) if _is_quantity(given) else (given, None)


def quantity(array: Any, measure: Measure | None) -> Any:
    """A number with a unit; a plain number where the dimensions cancel, with the scale of the unit in it."""
    if measure is None:
        return array
    found = measure.kind(array, unit=measure.unit)
    return found.to_decimal() if measure.unit.dim.is_dimensionless else found
