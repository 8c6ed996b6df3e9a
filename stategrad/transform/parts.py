"""Tangents and cotangents: what the user gives, checked leaf by leaf, and what the user gets."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategrad import jax_compat as compat
from stategrad.errors import GradientError
from stategrad.ir import Type
from stategrad.ir.record import record
from stategrad.state import State
from stategrad.units import Measure, measured, product, quantity, ratio, taken_apart
from stategrad.user_frame import user_line

from .selection import shown_tree
from .wanted import WantedStates

_FLOAT0 = jax.dtypes.float0


@record
class Place:
    """One array that a program takes or gives.

    Attributes:
        name: what an error calls it, such as `argument 'x'` or `the State 'w'`.
        type: its type.
        number: which operand or result of the program it is; None if the program does not know it.
    """

    name: str
    type: Type
    number: int | None

    def checked(self, given: Any, what: str) -> Any:
        """What the user gave as the tangent or cotangent of this array; None for a zero.

        Raises:
            GradientError: it is no array, or one of another type.
        """
        if given is None:
            return None
        if not self.type.differentiable:
            if getattr(given, "dtype", None) == _FLOAT0:
                return None
            raise self._refused(given, what, "None or zeros of jax.dtypes.float0")
        if isinstance(given, jax.ShapeDtypeStruct) or not compat.is_array_like(given):
            raise self._refused(given, what, str(self.type))
        array = compat.adopt_type(given, compat.aval_of_type(self.type))
        if compat.type_of_aval(jax.typeof(array)) != self.type:
            raise self._refused(given, what, str(self.type))
        return array

    def _refused(self, given: Any, what: str, expected: str) -> GradientError:
        return GradientError(
            f"the {what} of {self.name} is {_shown(given)}, expected {expected}{user_line()}; "
            f"{self.name} is {self.type}"
        )

    def found(self, found: Mapping[int, Any]) -> Any:
        """The tangent or cotangent of this array, zero if there is none."""
        if self.number is not None and self.number in found:
            return found[self.number]
        if not self.type.differentiable:
            return np.zeros(self.type.shape, _FLOAT0)
        return jnp.zeros(self.type.shape, compat.jax_dtype(self.type.dtype))


@record
class Part:
    """A pytree of places: one argument, the value of a function, the value of one State."""

    name: str
    tree: Any
    places: tuple[Place, ...]

    def leaves(self, given: Any, what: str) -> Iterator[tuple[Place, Any]]:
        """The places whose tangent or cotangent the user gave, and that. None means zero.

        Raises:
            GradientError: the structure or the type of a leaf differs.
        """
        if given is None:
            return
        leaves = _up_to(self.tree, given, f"the {what} of {self.name}")
        for place, leaf in zip(self.places, leaves, strict=True):
            array = place.checked(leaf, what)
            if array is not None:
                yield place, array

    def build(self, found: Mapping[int, Any]) -> Any:
        """The pytree of what was found for each number; zeros elsewhere."""
        return self.tree.unflatten([p.found(found) for p in self.places])

    # ---- with units: a tangent has the unit of its primal, but a cotangent or derivative has another one
    @property
    def measure(self) -> Measure | None:
        """The unit of the first array."""
        return next(iter(measured(self.tree)[1]), None)

    def by_unit(self, found: Mapping[int, Any], of: Measure | None) -> Any:
        """As `build`, for derivatives of something of measure `of`."""
        bare, measures = measured(self.tree)
        each = zip(self.places, measures, strict=True)
        return bare.unflatten([quantity(p.found(found), ratio(of, by)) for p, by in each])

    def cotangents(self, given: Any) -> Iterator[tuple[Place, Any, Measure | None]]:
        """As `leaves`, for cotangents with any units; also the measure of their products with the values."""
        bare, measures = measured(self.tree)
        each: Sequence[Any] = [None] * len(self.places)
        if given is not None:
            each = _up_to(bare, given, f"the cotangent of {self.name}")
        for place, leaf, measure in zip(self.places, each, measures, strict=True):
            number, unit = taken_apart(leaf)
            array = place.checked(number, "cotangent")
            if array is not None:
                yield place, array, product(unit, measure)


@record
class StateParts:
    """A container of States as the user gave it, and the part for each State in it.

    Attributes:
        container: its form. It does not hold the States: pullbacks live in JAX's caches.
    """

    container: WantedStates
    parts: tuple[Part, ...]

    @staticmethod
    def of(wanted: WantedStates, part: Callable[[State], Part]) -> "StateParts":
        """The parts that `part` gives for the States."""
        return StateParts(replace(wanted, states=()), tuple(map(part, wanted.states)))

    def leaves(self, given: Any, what: str) -> Iterator[tuple[Place, Any]]:
        """As `Part.leaves`, for a container of the same form."""
        for part, one in self._each(given, what):
            yield from part.leaves(one, what)

    def _each(self, given: Any, what: str) -> Iterable[tuple[Part, Any]]:
        each: list[Any] = [None] * len(self.parts)
        _spread(self.container.fill(range(len(each))), given, each, f"the {what}s of the States")
        return zip(self.parts, each, strict=True)

    def build(self, found: Mapping[int, Any]) -> Any:
        """As `Part.build`, in the container."""
        return self.container.fill([part.build(found) for part in self.parts])

    def by_unit(self, found: Mapping[int, Any], of: Measure | None) -> Any:
        """As `Part.by_unit`, in the container."""
        return self.container.fill([part.by_unit(found, of) for part in self.parts])

    def cotangents(self, given: Any) -> Iterator[tuple[Place, Any, Measure | None]]:
        """As `Part.cotangents`, for a container of the same form."""
        for part, one in self._each(given, "cotangent"):
            yield from part.cotangents(one)


def _spread(form: Any, given: Any, found: list[Any], name: str) -> None:
    """Puts what a container holds for each number in `form` into `found`; None stands for any part of it."""
    if isinstance(form, int):
        found[form] = given
    elif given is None or form is None:
        return
    elif isinstance(form, Mapping):
        if not isinstance(given, Mapping) or set(form) != set(given):
            keys = [*given] if isinstance(given, Mapping) else type(given).__name__
            raise GradientError(f"{name} must be a mapping with the keys {[*form]}{user_line()}, not {keys}")
        for key, inner in form.items():
            _spread(inner, given[key], found, f"{name} at {key!r}")
    elif isinstance(form, (list, tuple)):
        if not isinstance(given, (list, tuple)) or len(given) != len(form):
            kind = f"{type(form).__name__} of {len(form)}"
            raise GradientError(f"{name} must be a {kind}{user_line()}, not {_shown(given)}")
        for i, (inner, each) in enumerate(zip(form, given, strict=True)):
            _spread(inner, each, found, f"{name} at {i}")
    else:
        leaves, tree = jax.tree.flatten(form)
        for inner, each in zip(leaves, _up_to(tree, given, name), strict=True):
            found[inner] = each


def _up_to(tree: Any, given: Any, name: str) -> list[Any]:
    """What a pytree holds in place of each leaf of `tree`."""
    try:
        return tree.flatten_up_to(given)
    except (TypeError, ValueError):
        raise GradientError(
            f"{name} has the structure {shown_tree(jax.tree.structure(given))}, "
            f"expected {shown_tree(tree)}{user_line()}"
        ) from None


def _shown(given: Any) -> str:
    if isinstance(given, State):
        return f"the State {given.name!r}"
    if isinstance(given, (list, tuple)):
        return f"a {type(given).__name__} of {len(given)}"
    if not hasattr(given, "dtype"):
        return f"{given!r} of type {type(given).__name__}"
    return f"{'float0' if given.dtype == _FLOAT0 else given.dtype}{list(np.shape(given))}"


# ------------------------------------------------------------------------------------------------ both sides
@record
class Inputs:
    """What is differentiated by.

    Attributes:
        args: the arguments; None if there are none to be.
        bare: there is one, and it is not to be put in a tuple.
        unit_aware: derivatives by them have units.
    """

    args: tuple[Part, ...] | None
    bare: bool
    states: StateParts | None
    unit_aware: bool = False

    @property
    def numbers(self) -> tuple[int, ...]:
        """The operands of the program that there is a derivative by, each once, in order."""
        return _numbers((*(self.args or ()), *(self.states.parts if self.states else ())))

    @property
    def names(self) -> dict[int, str]:
        """What a person calls each of `numbers`."""
        return _names((*(self.args or ()), *(self.states.parts if self.states else ())))

    def build(self, found: Mapping[int, Any], of: Measure | None = None) -> Any:
        """Derivatives of something of measure `of`: `(by states, by arguments)`, or the one of them that was
        asked for.
        """

        def built(part: Part | StateParts) -> Any:
            return part.by_unit(found, of) if self.unit_aware else part.build(found)

        states = None if self.states is None else built(self.states)
        if self.args is None:
            return states
        args = tuple(map(built, self.args))
        by_args = args[0] if self.bare else args
        return by_args if self.states is None else (states, by_args)


@record
class Outputs:
    """What is differentiated: the value of a function, and what some States hold at its end."""

    value: Part
    final: StateParts | None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The results of the program that have a derivative, each once, in order."""
        return _numbers((self.value, *(self.final.parts if self.final else ())))

    @property
    def names(self) -> dict[int, str]:
        """What a person calls each of `numbers`."""
        return _names((self.value, *(self.final.parts if self.final else ())))

    def build(self, found: Mapping[int, Any]) -> tuple[Any, ...]:
        """The tangent of the value, and those of the final States if any were asked for."""
        value = self.value.build(found)
        return (value,) if self.final is None else (value, self.final.build(found))


def _numbers(parts: Sequence[Part]) -> tuple[int, ...]:
    numbers = (p.number for part in parts for p in part.places if p.type.differentiable)
    return tuple(sorted({n for n in numbers if n is not None}))


def _names(parts: Sequence[Part]) -> dict[int, str]:
    names = {p.number: p.name for part in parts for p in part.places if p.number is not None}
    return {n: names[n] for n in _numbers(parts)}


def summed(leaves: Sequence[tuple[Place, Any]]) -> dict[int, Any]:
    """Cotangents by number; several for one result add up."""
    found: dict[int, Any] = {}
    for place, array in leaves:
        if place.number is not None:
            found[place.number] = found[place.number] + array if place.number in found else array
    return found


def distinct(leaves: Sequence[tuple[Place, Any]]) -> dict[int, Any]:
    """Tangents by number.

    Raises:
        GradientError: one array is given two.
    """
    found: dict[int, Any] = {}
    for place, array in leaves:
        if place.number in found:
            raise GradientError(f"{place.name} is given two tangents{user_line()}")
        if place.number is not None:
            found[place.number] = array
    return found


def shown_part(parts: Sequence[Part]) -> str:
    """The names of parts, for errors."""
    return ", ".join(p.name for p in parts) or "nothing"
