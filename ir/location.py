"""Where an operation comes from: a line of the user's program, and the passes that derived it."""

from collections.abc import Callable
from dataclasses import dataclass


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
    """A place that is found out when it is shown, from a traceback that costs nothing to keep."""

    __slots__ = ("_found", "_resolve")

    def __init__(self, resolve: Callable[[], Location]) -> None:
        self._resolve: Callable[[], Location] | None = resolve
        self._found: Location = UNKNOWN

    @property
    def source(self) -> Location:
        resolve = self._resolve
        if resolve is not None:
            self._found, self._resolve = resolve(), None
        return self._found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and self.source == other.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __str__(self) -> str:
        return str(self.source)


@dataclass(frozen=True, slots=True)
class Derived(Location):
    """An operation that the pass `by` made from the one at `base`. Printed
    `loc(transpose(linearize("f.py":3:4)))`.
    """

    by: str
    base: Location

    @property
    def source(self) -> Location:
        return self.base.source

    def __str__(self) -> str:
        return f"{self.by}({self.base})"


UNKNOWN = Unknown()
