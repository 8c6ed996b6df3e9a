"""Putting results together for the user, by a form that is worked out once."""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax


class _Result:
    """Stands for a result of the program while the form is worked out."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def assembled(build: Callable[[list[Any]], Any], count: int) -> tuple[Sequence[int], Callable[..., Any]]:
    """The numbers of the results, of so many, that `build` puts into what it makes, and what makes the same
    of those alone without asking `build` again. Where the user's containers are no pytrees, or quantities are
    made, all are taken, and `build` is asked each time.
    """
    try:
        leaves, tree = jax.tree.flatten(build([_Result(i) for i in range(count)]))
    except Exception:  # code of the user's that takes nothing but arrays
        return range(count), build
    fixed = [x for x in leaves if not isinstance(x, _Result)]
    if not all(isinstance(x, jax.Array) for x in fixed):
        return range(count), build
    used = sorted({x.number for x in leaves if isinstance(x, _Result)})
    place = {number: i for i, number in enumerate(used)}
    places = iter(range(len(used), len(used) + len(fixed)))
    numbers = [place[x.number] if isinstance(x, _Result) else next(places) for x in leaves]
    return used, _form(tree, numbers, len(used), fixed)


def _form(tree: Any, numbers: list[int], count: int, fixed: list[Any]) -> Callable[[list[Any]], Any]:
    if not fixed and numbers == list(range(count)):
        return ALONE if tree == _LEAF else tree.unflatten
    pick = operator.itemgetter(*numbers) if len(numbers) > 1 else lambda all: [all[n] for n in numbers]
    return lambda results: tree.unflatten(pick([*results, *fixed]))


_LEAF = jax.tree.structure(0)
ALONE = operator.itemgetter(0)
"""For a function that gives one array and nothing around it."""
