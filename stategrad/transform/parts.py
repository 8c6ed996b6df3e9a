"""Tangents and cotangents: what the user gives, checked leaf by leaf, and what the user gets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stategrad import jax_compat as compat
from stategrad.errors import GradientError
from stategrad.ir import Type
from stategrad.state import State
from stategrad.user_frame import user_line

from .selection import shown_tree
from .wanted import WantedStates

_FLOAT0 = jax.dtypes.float0


@dataclass(frozen=True)
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
        if not compat.is_array_like(given):
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

    def zero(self) -> Any:
        """The zero tangent or cotangent of this array."""
        if not self.type.differentiable:
            return np.zeros(self.type.shape, _FLOAT0)
        return jnp.zeros(self.type.shape, compat.jax_dtype(self.type.dtype))


@dataclass(frozen=True)
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
        try:
            leaves = self.tree.flatten_up_to(given)
        except (TypeError, ValueError):
            raise GradientError(
                f"the {what} of {self.name} has the structure {shown_tree(jax.tree.structure(given))}, "
                f"expected {shown_tree(self.tree)}{user_line()}"
            ) from None
        for place, leaf in zip(self.places, leaves, strict=True):
            array = place.checked(leaf, what)
            if array is not None:
                yield place, array

    def build(self, found: Mapping[int, Any]) -> Any:
        """The pytree of what was found for each number; zeros elsewhere."""
        return self.tree.unflatten([found[p.number] if p.number in found else p.zero() for p in self.places])


@dataclass(frozen=True)
class StateParts:
    """A container of States as the user gave it, and the part for each State in it."""

    wanted: WantedStates
    parts: tuple[Part, ...]

    def leaves(self, given: Any, what: str) -> Iterator[tuple[Place, Any]]:
        """As `Part.leaves`, for a container of the same form."""
        for part, each in zip(self.parts, spread(self.wanted, given, what), strict=True):
            yield from part.leaves(each, what)

    def build(self, found: Mapping[int, Any]) -> Any:
        """As `Part.build`, in the container."""
        return self.wanted.fill([part.build(found) for part in self.parts])


def spread(wanted: WantedStates, given: Any, what: str) -> list[Any]:
    """What a container of the form of `wanted` holds for each State; None where it holds nothing.

    Raises:
        GradientError: it has another form.
    """
    found: list[Any] = [None] * len(wanted.states)
    _spread(wanted.fill(range(len(found))), given, found, f"the {what}s of the States")
    return found


def _spread(form: Any, given: Any, found: list[Any], name: str) -> None:
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
        for inner, each in zip(leaves, tree.flatten_up_to(given), strict=True):
            found[inner] = each


def _shown(given: Any) -> str:
    if isinstance(given, State):
        return f"the State {given.name!r}"
    if isinstance(given, (list, tuple)):
        return f"a {type(given).__name__} of {len(given)}"
    if not hasattr(given, "dtype"):
        return f"{given!r} of type {type(given).__name__}"
    return f"{jnp.dtype(given.dtype).name if given.dtype != _FLOAT0 else 'float0'}{list(np.shape(given))}"


# ------------------------------------------------------------------------------------------------ both sides
@dataclass(frozen=True)
class Inputs:
    """What is differentiated by.

    Attributes:
        args: the arguments; None if there are none to be.
        bare: there is one, and it is not to be put in a tuple.
    """

    args: tuple[Part, ...] | None
    bare: bool
    states: StateParts | None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The operands of the program that there is a derivative by, each once, in order."""
        return _numbers((*(self.args or ()), *(self.states.parts if self.states else ())))

    def build(self, found: Mapping[int, Any]) -> Any:
        """`(by states, by arguments)`, or the one of them that was asked for."""
        states = None if self.states is None else self.states.build(found)
        if self.args is None:
            return states
        args = tuple(part.build(found) for part in self.args)
        by_args = args[0] if self.bare else args
        return by_args if self.states is None else (states, by_args)


@dataclass(frozen=True)
class Outputs:
    """What is differentiated: the value of a function, and what some States hold at its end."""

    value: Part
    final: StateParts | None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The results of the program that have a derivative, each once, in order."""
        return _numbers((self.value, *(self.final.parts if self.final else ())))

    def build(self, found: Mapping[int, Any]) -> tuple[Any, ...]:
        """The tangent of the value, and those of the final States if any were asked for."""
        value = self.value.build(found)
        return (value,) if self.final is None else (value, self.final.build(found))


def _numbers(parts: Sequence[Part]) -> tuple[int, ...]:
    numbers = (p.number for part in parts for p in part.places if p.type.differentiable)
    return tuple(sorted({n for n in numbers if n is not None}))


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
