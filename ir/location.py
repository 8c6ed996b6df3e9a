"""Where an operation comes from: a line of the user's program, and the passes that derived it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final


class Location:
    """The base of all locations; `source` is the user's place at the bottom of it."""

    __slots__ = ()

    @property
    def source(self) -> "Location":
        return self


@dataclass(frozen=True, slots=True)
class Unknown(Location):
    """No place is known. Printed `loc(unknown)`."""

    def __str__(self) -> str:
        return "unknown"


@dataclass(frozen=True, slots=True)
class Source(Location):
    """A place in a file; line and column count from 1 and 0, as in Python. Printed `loc("f.py":3:4)`."""

    file: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        return f'"{self.file}":{self.line}:{self.column}'


class LazySource(Location):
    """A place that is found out when it is shown, by `resolve(*args)`: from a traceback, which costs nothing
    to keep.
    """

    __slots__ = ("_args", "_found", "_resolve")

    def __init__(self, resolve: Callable[..., Location], *args: Any) -> None:
        self._resolve = resolve
        self._args = args
        self._found: Location | None = None

    @property
    def source(self) -> Location:
        if self._found is None:
            self._found, self._args = self._resolve(*self._args), ()
        return self._found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __str__(self) -> str:
        return str(self.source)


class Derived(Location):
    """An operation that the pass `by` made from the one at `base`. Printed
    `loc(transpose(linearize("f.py":3:4)))`.
    """

    __slots__ = ("base", "by")

    def __init__(self, by: str, base: Location) -> None:
        self.by: Final = by
        self.base: Final = base

    @property
    def source(self) -> Location:
        return self.base.source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Derived) and self.by == other.by and self.base == other.base

    def __hash__(self) -> int:
        return hash((self.by, self.base))

    def __repr__(self) -> str:
        return f"Derived({self.by!r}, {self.base!r})"

    def __str__(self) -> str:
        return f"{self.by}({self.base})"


UNKNOWN = Unknown()
