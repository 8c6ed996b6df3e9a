"""Putting results together for the user, by a form that is worked out once."""

import operator
from collections.abc import Callable
from typing import Any

import jax


class _Result:
    """Stands for a result of the program while the form is worked out."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def assembled(build: Callable[[list[Any]], Any], count: int) -> Callable[[list[Any]], Any]:
    """What does the same as `build` on `count` arrays, without asking it again where that is possible.

    It is not where the user's containers are no pytrees, or quantities are made.
    """
    try:
        leaves, tree = jax.tree.flatten(build([_Result(i) for i in range(count)]))
    except Exception:  # code of the user's that takes nothing but arrays, and will be asked each time
        return build
    fixed = [x for x in leaves if not isinstance(x, _Result)]
    if not all(isinstance(x, jax.Array) for x in fixed):
        return build
    places = iter(range(count, count + len(fixed)))
    numbers = [x.number if isinstance(x, _Result) else next(places) for x in leaves]
    return _form(tree, numbers, count, fixed)


def _form(tree: Any, numbers: list[int], count: int, fixed: list[Any]) -> Callable[[list[Any]], Any]:
    if not fixed and numbers == list(range(count)):
        return ALONE if tree == _LEAF else tree.unflatten
    pick = operator.itemgetter(*numbers) if len(numbers) > 1 else lambda all: [all[n] for n in numbers]
    return lambda results: tree.unflatten(pick([*results, *fixed]))


_LEAF = jax.tree.structure(0)
ALONE = operator.itemgetter(0)
"""For a function that gives one array and nothing around it."""
