"""Arguments that are part of the program rather than its input."""

import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stategrad.arguments import Hidden, function_name
from stategrad.errors import TraceError
from stategrad.ir.record import record


@record
class Static:
    """Which arguments of a function are static, by position and by name."""

    positions: frozenset[int]
    names: frozenset[str]

    @staticmethod
    def of(
        fn: Callable[..., Any], argnums: int | Sequence[int] | None, argnames: str | Iterable[str] | None
    ) -> "Static":
        """Resolves names to positions and back through the function's signature.

        Raises:
            TraceError: the function has no such argument, or it is named by something else than a number.
        """
        nums = _numbers(argnums)
        names = [] if argnames is None else [argnames] if isinstance(argnames, str) else list(argnames)
        if not nums and not names:
            return Static(frozenset(), frozenset())
        parameters = _parameters(fn)
        positional = [
            n for n, p in parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        any_name = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        any_position = any(p.kind is p.VAR_POSITIONAL for p in parameters.values())
        for name in names:
            if name not in parameters and not any_name:
                raise TraceError(
                    f"static_argnames names {name!r}, but the arguments of {function_name(fn)} are "
                    f"({', '.join(parameters)})"
                )
        for num in nums:
            if not any_position and not -len(positional) <= num < len(positional):
                raise TraceError(
                    f"static_argnums names argument {num}, but {function_name(fn)} has {len(positional)}: "
                    f"({', '.join(positional)})"
                )
        # With *args, a negative number means another argument in each call.
        positions = {n % len(positional) if n < 0 and not any_position else n for n in nums}
        by_position = {positional[p] for p in positions if 0 <= p < len(positional)}
        by_name = {positional.index(n) for n in names if n in positional}
        return Static(frozenset(positions | by_name), frozenset({*names, *by_position}))

    def __bool__(self) -> bool:
        return bool(self.positions or self.names)

    def hide(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with the static ones taken out of JAX's sight.

        Raises:
            TraceError: a static argument cannot be compared and hashed.
        """
        at = {p + len(args) if p < 0 else p for p in self.positions}
        hidden = tuple(_hidden(a, f"number {i}") if i in at else a for i, a in enumerate(args))
        return hidden, {k: _hidden(v, repr(k)) if k in self.names else v for k, v in kwargs.items()}


def _numbers(argnums: Any) -> list[int]:
    each = [] if argnums is None else [*argnums] if isinstance(argnums, Iterable) else [argnums]
    try:
        return [operator.index(n) for n in each]
    except TypeError:
        raise TraceError(f"static_argnums must be an integer or several, not {argnums!r}") from None


def _hidden(value: Any, which: str) -> Hidden:
    try:
        hash(value)
    except TypeError:
        raise TraceError(
            f"static argument {which} is {value!r} of type {type(value).__name__}, which cannot be hashed; "
            "pass a tuple, a string, a number or a frozen dataclass"
        ) from None
    return Hidden(value)


def _parameters(fn: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(fn).parameters)
    except (TypeError, ValueError):
        return {
            "args": inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
            "kwargs": inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
        }
