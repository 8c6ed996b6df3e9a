"""What is wrong with the body of a loop or with branches: the leaf, its types, the user's line."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.errors import TraceError
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
    """The structure of a pytree, and the type of each leaf by its path."""

    def __init__(self, tree: Any) -> None:
        paths, self.tree = jax.tree_util.tree_flatten_with_path(tree)
        self.types = {jax.tree_util.keystr(path): _shown_type(leaf) for path, leaf in paths}

    def __str__(self) -> str:
        return str(self.tree).removeprefix("PyTreeDef(").removesuffix(")")


class Carry:
    """What the body of a loop takes and gives back, as seen in its last trace."""

    def __init__(self, loop: str, body: Callable[..., Any]) -> None:
        self.loop = loop
        self.body = body
        self._noted: tuple[Noted, Noted] | None = None

    def begin(self) -> None:
        """Forgets what was noted: the body runs again, and may raise an error of its own."""
        self._noted = None

    def note(self, before: Any, after: Any) -> None:
        """Notes what a body, that has run to its end, took and gave back."""
        self._noted = Noted(before), Noted(after)

    def mismatch(self) -> str | None:
        """What is wrong, if the body gives back another type than it takes."""
        if self._noted is None:
            return None
        before, after = self._noted
        start = f"the carry of {self.loop}{user_line()} changes its"
        where = f"in {described(self.body)}: it enters as"
        if before.tree != after.tree:
            return (
                f"{start} structure {where} {before} and comes back as {after}; give back what you take, "
                "and other results as outputs"
            )
        for path, old in before.types.items():
            if (new := after.types[path]) != old:
                where = where.replace("it enters", f"carry{path} enters")
                return (
                    f"{start} type {where} {old} and comes back as {new}; give back {old} "
                    f"({_conversion(old, new)}), or start with {new}"
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

        return named_as(branch, noted)

    def mismatch(self) -> str | None:
        """What is wrong, if two branches, that have run to their end, give different types."""
        if not self._results:
            return None
        first, *others = sorted(self._results)
        return next(filter(None, (self._between(first, other) for other in others)), None)

    def _between(self, i: int, j: int) -> str | None:
        a, b = self._results[i], self._results[j]
        f, g = (f"branch {n}, {described(self.branches[n])}" for n in (i, j))
        start = f"the branches of {self.name}{user_line()} give different"
        if a.tree != b.tree:
            return f"{start} structures: {f}, gives {a}, and {g}, gives {b}; give the same from each"
        for path, old in a.types.items():
            if (new := b.types[path]) != old:
                return (
                    f"{start} types: result{path} of {f}, is {old}, and of {g}, is {new}; "
                    f"make them equal ({_conversion(old, new)})"
                )
        return None


def _shown_type(leaf: Any) -> str:
    if not compat.is_array_like(leaf):
        return f"a {type(leaf).__name__}, which is no array"
    return compat.strong(jax.typeof(leaf)).str_short()


def _conversion(old: str, new: str) -> str:
    dtype, shape = old.partition("[")[::2]
    return f"`.astype('{dtype}')`" if new.partition("[")[2] == shape else "keep its shape"


# ------------------------------------------------------------------------------------------------ functions
def described(fn: Callable[..., Any]) -> str:
    """A function of the user's by its name and where it is written: `step` (train.py:12)."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    fn = inspect.unwrap(fn)
    code = getattr(getattr(fn, "__func__", fn), "__code__", None)
    name = getattr(fn, "__name__", type(fn).__name__)
    return f"`{name}` ({code.co_filename}:{code.co_firstlineno})" if code is not None else f"`{name}`"


def named_as(fn: Callable[..., Any], wrapper: Callable[..., Any]) -> Callable[..., Any]:
    """The wrapper under the name and parameters of a function, which the IR shows."""
    return functools.update_wrapper(wrapper, fn, assigned=("__name__", "__qualname__"), updated=())
