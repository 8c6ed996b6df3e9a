"""What a gradient is taken with respect to: arguments by number, States by any container of them."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from stategrad.errors import GradientError
from stategrad.graph import FlatStates, NestedStates
from stategrad.ir.record import record
from stategrad.state import State


def is_sequence(argnums: Any) -> bool:
    """Whether argument numbers were given as a collection: the result is a tuple then."""
    return isinstance(argnums, (Sequence, set, frozenset))


def resolve_argnums(argnums: Any, count: int, name: str) -> tuple[int, ...]:
    """Argument numbers as non-negative ints.

    Raises:
        GradientError: no integer, out of range, or named twice.
    """
    given = tuple(argnums) if is_sequence(argnums) else (argnums,)
    found = []
    for n in given:
        try:
            n = operator.index(n)
        except TypeError:
            raise GradientError(f"argnums of {name} must be integers, not {n!r}") from None
        if not -count <= n < count:
            raise GradientError(
                f"argnums names argument {n} of {name}, which was called with {count} positional "
                f"argument{'s' * (count != 1)} (of a method: after self); arguments to differentiate by must "
                "be passed by position"
            )
        found.append(n % count)
    if len(set(found)) != len(found):
        raise GradientError(f"argnums of {name} names an argument twice: {given}")
    return tuple(found)


@record
class WantedStates:
    """The States to differentiate by, and the container that their gradients are given in.

    A single State gives a bare gradient; lists, tuples, dicts and mappings keep their form; None stays None;
    a State that occurs twice gives its gradient twice.
    """

    states: tuple[State, ...]
    form: Any

    @staticmethod
    def of(grad_states: Any, what: str = "grad_states") -> "WantedStates | None":
        """Reads `grad_states`, or what else an error calls them; None and empty containers mean no States.

        Raises:
            GradientError: something in it is no State.
        """
        found: list[State] = []
        form = _form(grad_states, found, what)
        return WantedStates(tuple(found), form) if found else None

    def fill(self, gradients: Sequence[Any]) -> Any:
        """The gradients, one for each of `states`, in the container."""
        return _fill(self.form, iter(gradients))


@record
class _Node:
    """A container of the user's: its kind, and what stands for its entries."""

    kind: Any
    keys: tuple[Any, ...]
    children: tuple[Any, ...]


_STATE = object()


def _form(given: Any, found: list[State], what: str) -> Any:
    if given is None:
        return None
    if isinstance(given, State):
        found.append(given)
        return _STATE
    if callable(getattr(given, "states", None)):  # a Module
        given = given.states()
    if isinstance(given, Mapping):
        kind = type(given) if isinstance(given, (FlatStates, NestedStates)) else dict
        return _Node(kind, tuple(given), tuple(_form(v, found, what) for v in given.values()))
    fields = getattr(given, "_fields", None)
    if isinstance(given, tuple) and fields is not None:
        return _Node(type(given), fields, tuple(_form(v, found, what) for v in given))
    if isinstance(given, (list, tuple)):
        return _Node(type(given), (), tuple(_form(v, found, what) for v in given))
    if jax.tree.structure(given) == jax.tree.structure(0):
        number = isinstance(given, (int, np.integer)) and what == "grad_states"
        raise GradientError(
            f"{what} holds {given!r} of type {type(given).__name__}; expected a State, or a list, "
            f"tuple, dict or Module of States{'; argument numbers go to argnums=' if number else ''}"
        )
    leaves, tree = jax.tree.flatten(given)
    return _Node(tree.unflatten, (), (*(_form(v, found, what) for v in leaves),))


def _fill(form: Any, gradients: Any) -> Any:
    if form is None:
        return None
    if form is _STATE:
        return next(gradients)
    children = [_fill(c, gradients) for c in form.children]
    if isinstance(form.kind, type) and issubclass(form.kind, dict):
        return form.kind(zip(form.keys, children, strict=True))
    return form.kind(*children) if form.keys else form.kind(children)
