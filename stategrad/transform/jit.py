"""`jit`: a stateful function compiled as a whole."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

from .engine import Engine
from .recipes import AsIs
from .stages import Stageable
from .static import Static

F = TypeVar("F", bound=Callable[..., Any])


class Jitted(Stageable):
    """A compiled stateful function; see `jit`."""

    def __init__(
        self, fn: Callable[..., Any], argnums: Any, argnames: Any, donate: bool, debug_nan: bool = False
    ) -> None:
        self._look_like(fn)
        self._fn = fn
        static = Static.of(fn, argnums, argnames)
        self._engine = Engine(fn, AsIs(), static, donate=donate, inline=True, debug_nan=debug_nan)

    def __repr__(self) -> str:
        return f"<stategrad.jit of {getattr(self._fn, '__qualname__', self._fn)}>"


@overload
def jit(fn: Callable[..., Any], /) -> Jitted: ...
@overload
def jit(
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate: bool = True,
    debug_nan: bool = False,
) -> Callable[[Callable[..., Any]], Jitted]: ...
@overload
def jit(
    fn: Callable[..., Any],
    /,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate: bool = True,
    debug_nan: bool = False,
) -> Jitted: ...
def jit(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    donate: bool = True,
    debug_nan: bool = False,
) -> Any:
    """Compiles a function that reads and writes States; also a decorator, with or without options.

    The States that it writes are committed together after the call has succeeded, or not at all.

    Args:
        fn: takes and returns pytrees of arrays; may read and write any State.
        static_argnums, static_argnames: arguments that are part of the program: hashable, one compilation
            each.
        donate: let XLA reuse the buffers of written States that nobody else holds.
        debug_nan: look at results and written States before anything is returned or committed; if something
            is not finite, find the operation that made it. Does not donate.

    Raises:
        TraceError: an argument or result is no array.
        StateError: a State is used where or how that is not possible.
        NonFiniteError: with `debug_nan`, something is not finite.
    """

    def compiled(fn: Callable[..., Any]) -> Jitted:
        return Jitted(fn, static_argnums, static_argnames, donate, debug_nan)

    return compiled if fn is None else compiled(fn)
