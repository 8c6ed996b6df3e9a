"""Why a compiled function was traced: a sentence each time, for `explain()` and STATEGRAD_LOG=retrace."""

import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import function_name, static_values
from stategrad.errors import RetraceWarning
from stategrad.ir.record import record
from stategrad.trace import Traced
from stategrad.user_frame import user_line

_KEPT = 100
_MANY = 8
"""So many traces for values that changed bring a warning, once for each function."""


@record
class _Made:
    """What a trace was made for: the types of arguments and States and the values of static arguments, all as
    text by name, and the settings of JAX.
    """

    signature: Mapping[str, str]
    settings: Mapping[str, Any]


class Retraces:
    """The record of one compiled function.

    With the environment variable STATEGRAD_LOG=retrace each sentence is also written to stderr as it comes.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._sentences: list[str] = []
        self._count = 0
        self._made: list[_Made] = []
        self._broken: str | None = None
        self._by_values = 0

    def guard_broke(self, what: str) -> None:
        """Notes what changed among the values that the function reads; the next trace is due to that."""
        self._broken = what
        self._made.clear()

    def traced(self, traced: Traced, args: Any, kwargs: Any, why: str | None = None) -> None:
        """Notes a trace for these arguments, static ones hidden; `why` if that is known."""
        self._count += 1
        made = _Made(self._signature(traced, args, kwargs), compat.settings())
        reason = self._reason(made, why)
        sentence = f"trace {self._count} of {function_name(self._fn)}: {reason}"
        if self._broken is not None:
            self._broken = None
            self._by_values += 1
            if self._by_values == _MANY:
                self._warn(reason)
        self._made.append(made)
        self._sentences.append(sentence)
        del self._sentences[:-_KEPT], self._made[:-_KEPT]
        if "retrace" in os.environ.get("STATEGRAD_LOG", "").split(","):
            print(f"stategrad: {sentence}", file=sys.stderr)

    def explain(self) -> str:
        """All reasons, a line each, the latest last."""
        return "\n".join(self._sentences) or f"{function_name(self._fn)} has not been traced yet"

    def _warn(self, reason: str) -> None:
        message = (
            f"{function_name(self._fn)} has been traced {_MANY} times because a value changed that it reads, "
            f"the last time because {reason}{user_line()}; pass what changes as an argument, or keep it in a "
            "State; explain() tells all reasons"
        )
        warnings.warn(message, RetraceWarning, stacklevel=2)

    def _signature(self, traced: Traced, args: Any, kwargs: Any) -> dict[str, str]:
        found = traced.signature()
        for name, leaf in zip(traced.arguments, jax.tree.leaves((args, kwargs)), strict=True):
            if compat.weak(leaf):
                found[name] = f"weak {found[name]}"
        static = static_values(self._fn, args, kwargs)
        return found | {f"the static argument {name}": repr(value) for name, value in static.items()}

    def _reason(self, made: _Made, why: str | None) -> str:
        if self._broken is not None:
            return self._broken
        if self._count == 1:
            shown = ", ".join(f"{name}: {type}" for name, type in made.signature.items())
            return f"the first call, with {shown or 'no arguments'}"
        if why is not None:
            return why
        nearest = min(self._made, key=lambda m: len(_differences(m.signature, made.signature)), default=made)
        settings = [f"the setting {text}" for text in _differences(nearest.settings, made.settings)]
        differences = _differences(nearest.signature, made.signature) or settings
        return "; ".join(differences) or "a context of JAX changed"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Sequence[str]:
    return [
        f"{name} changed from {before.get(name, 'nothing')} to {now.get(name, 'nothing')}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    ]
