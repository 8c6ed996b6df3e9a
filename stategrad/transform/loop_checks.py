"""What is wrong with the body of a loop or the branches of a condition, in words that name the leaf and the line."""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from stategrad import jax_compat as compat
from stategrad.arguments import shown_function
from stategrad.errors import TraceError
from stategrad.state import State
from stategrad.user_frame import user_line


@contextmanager
def explained(mismatch: Callable[[], str | None]) -> Iterator[None]:
    """Turns a TypeError of JAX into a TraceError that says what `mismatch()` finds, if it finds anything."""
    try:
        yield
    except TypeError as error:
        found = mismatch()
        if found is None:
            raise
        raise TraceError(found) from error


class Noted:
    """The structure and types of a pytree."""

    def __init__(self, tree: Any) -> None:
        paths, self.tree = jax.tree_util.tree_flatten_with_path(tree)
        self.types = {jax.tree_util.keystr(path): _shown_type(leaf) for path, leaf in paths}

    def shown(self) -> str:
        return str(self.tree).removeprefix("PyTreeDef(").removesuffix(")")


class Carry:
    """What enters the body of a loop and what comes back, in its last trace."""

    def __init__(self, loop: str, body: Callable[..., Any]) -> None:
        self.loop = loop
        self.body = body
        self._before: Noted | None = None
        self._after: Noted | None = None

    def enter(self, carry: Any) -> None:
        self._before, self._after = Noted(carry), None

    def leave(self, carry: Any) -> None:
        self._after = Noted(carry)

    def mismatch(self) -> str | None:
        """What is wrong, if the body has run to its end and gives back another type than it takes."""
        before, after = self._before, self._after
        if before is None or after is None:
            return None
        where = f"in {shown_function(self.body)}{user_line()}"
        if before.tree != after.tree:
            return (
                f"the carry of {self.loop} changes its structure {where}: it enters as {before.shown()} and comes back "
                f"as {after.shown()}; give back what you take, and other results as outputs"
            )
        for path, old in before.types.items():
            if (new := after.types[path]) != old:
                return (
                    f"the carry of {self.loop} changes its type {where}: carry{path} enters as {old} and comes back as "
                    f"{new}; give back {old} ({_conversion(old, new)}), or start with {new}"
                )
        return None


class Branches:
    """What each branch gave when it was traced."""

    def __init__(self, name: str, branches: Sequence[Callable[..., Any]]) -> None:
        self.name = name
        self.branches = branches
        self._results: dict[int, Noted] = {}

    def noting(self) -> list[Callable[..., Any]]:
        """The branches, noting their results."""
        return [self._noting(i, branch) for i, branch in enumerate(self.branches)]

    def _noting(self, number: int, branch: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*operands: Any) -> Any:
            self._results.pop(number, None)
            result = branch(*operands)
            self._results[number] = Noted(result)
            return result

        return noted

    def mismatch(self) -> str | None:
        """What is wrong, if two branches that have run to their end give different types."""
        if not self._results:
            return None
        first, *others = sorted(self._results.items())
        for other in others:
            found = self._between(first, other)
            if found is not None:
                return found
        return None

    def _between(self, one: tuple[int, Noted], two: tuple[int, Noted]) -> str | None:
        (i, a), (j, b) = one, two
        f, g = (f"branch {n}, {shown_function(self.branches[n])}," for n in (i, j))
        start = f"the branches of {self.name} give different"
        if a.tree != b.tree:
            return (
                f"{start} structures{user_line()}: {f} gives {a.shown()}, and {g} gives {b.shown()}; "
                "all branches must give the same"
            )
        for path, old in a.types.items():
            if (new := b.types[path]) != old:
                return (
                    f"{start} types{user_line()}: result{path} of {f} is {old}, and of {g} is {new}; make them equal "
                    f"({_conversion(old, new)})"
                )
        return None


def _shown_type(leaf: Any) -> str:
    if not compat.is_array_like(leaf):
        return f"a {type(leaf).__name__}, which is no array"
    return compat.strong(jax.typeof(leaf)).str_short()


def _conversion(old: str, new: str) -> str:
    dtype, shape = old.partition("[")[::2]
    return f"`.astype('{dtype}')`" if new.partition("[")[2] == shape else "keep its shape"


# ------------------------------------------------------------------------------------------------ small checks
def check_callable(given: Any, name: str, of: str) -> None:
    """Checks that a body, condition or branch can be called.

    Raises:
        TraceError: it cannot.
    """
    if not callable(given):
        raise TraceError(
            f"{name} of {of} is {given!r} of type {type(given).__name__}, not a function{user_line()}"
        )


def check_scalar(given: Any, kinds: str, name: str, of: str, wanted: str) -> None:
    """Checks that a predicate or index is one number of one of the kinds (as NumPy's `dtype.kind`).

    Raises:
        TraceError: it has axes, or another kind.
    """
    if isinstance(given, State) or not compat.is_array_like(given):
        instead = f"; pass {given.name}.value" if isinstance(given, State) else ""
        raise TraceError(
            f"{name} of {of} is {given!r} of type {type(given).__name__}, expected {wanted}{user_line()}{instead}"
        )
    found = jax.typeof(given)
    if found.shape != () or found.dtype.kind not in kinds:
        advice = "; reduce it with jnp.any, jnp.all or an index" if found.shape else ""
        raise TraceError(f"{name} of {of} is {found.str_short()}, expected {wanted}{user_line()}{advice}")


def loop_length(loop: str, xs: Any, length: int | None) -> int:
    """How many steps a loop over the leading axes of `xs` takes.

    Raises:
        TraceError: a leaf is no array, has no axis, or another length than the rest; there is nothing to count.
    """
    steps, said = (None, "") if length is None else (_steps(loop, length), "length says")
    for path, leaf in jax.tree_util.tree_flatten_with_path(xs)[0]:
        name = f"xs{jax.tree_util.keystr(path)}"
        n = _leading(loop, name, leaf)
        if steps is None:
            steps, said = n, f"{name} has"
        elif n != steps:
            raise TraceError(f"{name} of {loop} has {n} steps where {said} {steps}{user_line()}")
    if steps is None:
        raise TraceError(f"{loop} has nothing to loop over{user_line()}; pass arrays, or length=")
    return steps


def _steps(loop: str, length: Any) -> int:
    try:
        steps = operator.index(length)
    except TypeError:
        steps = -1
    if steps < 0:
        raise TraceError(
            f"length of {loop} is {length!r}, expected a number of steps, 0 or more{user_line()}"
        )
    return steps


def _leading(loop: str, name: str, leaf: Any) -> int:
    if isinstance(leaf, State):
        raise TraceError(f"{name} of {loop} is the State {leaf.name!r}{user_line()}; pass {leaf.name}.value")
    if not compat.is_array_like(leaf):
        raise TraceError(
            f"{name} of {loop} is {leaf!r} of type {type(leaf).__name__}, not an array{user_line()}; make it one with "
            "jnp.array"
        )
    shape = np.shape(leaf)
    if not shape:
        raise TraceError(
            f"{name} of {loop} is a single number, with no axis to loop over{user_line()}; pass an array (a list of "
            "numbers as jnp.array), or let the body close over it"
        )
    return shape[0]


def positive(given: Any, name: str, of: str, least: int = 1) -> int:
    """A whole number that is at least `least`.

    Raises:
        TraceError: it is not.
    """
    try:
        found = operator.index(given)
    except TypeError:
        found = least - 1
    if found < least:
        raise TraceError(
            f"{name} of {of} is {given!r}, expected a whole number, {least} or more{user_line()}"
        )
    return found
