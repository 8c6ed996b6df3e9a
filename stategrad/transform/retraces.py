"""Why a compiled function was traced: a sentence each time, for `explain()` and STATEGRAD_LOG=retrace."""

import os
import sys
from collections.abc import Mapping, Sequence

_KEPT = 100


class Retraces:
    """The record of one compiled function.

    With the environment variable STATEGRAD_LOG=retrace each sentence is also written to stderr as it comes.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._sentences: list[str] = []
        self._count = 0
        self._signatures: list[Mapping[str, str]] = []
        self._broken: str | None = None

    def guard_broke(self, what: str) -> None:
        """Notes what changed among the values that the function reads; the next trace is due to that."""
        self._broken = what
        self._signatures.clear()

    def traced(self, signature: Mapping[str, str], why: str | None = None) -> None:
        """Notes a trace for arguments and States of these types, by their names; `why` if that is known."""
        self._count += 1
        sentence = f"trace {self._count} of {self._name}: {self._reason(signature, why)}"
        self._broken = None
        self._signatures.append(signature)
        self._sentences.append(sentence)
        del self._sentences[:-_KEPT]
        if "retrace" in os.environ.get("STATEGRAD_LOG", "").split(","):
            print(f"stategrad: {sentence}", file=sys.stderr)

    def explain(self) -> str:
        """All reasons, a line each, the latest last."""
        return "\n".join(self._sentences) or f"{self._name} has not been traced yet"

    def _reason(self, signature: Mapping[str, str], why: str | None) -> str:
        if self._broken is not None:
            return self._broken
        if self._count == 1:
            shown = ", ".join(f"{name}: {type}" for name, type in signature.items())
            return f"the first call, with {shown or 'no arguments'}"
        if why is not None:
            return why
        nearest = min(self._signatures, key=lambda s: len(_differences(s, signature)), default={})
        return (
            "; ".join(_differences(nearest, signature))
            or "a number of Python's stands in place of an array of that type, or the other way round, or a "
            "setting of JAX changed"
        )


def _differences(before: Mapping[str, str], now: Mapping[str, str]) -> Sequence[str]:
    return [
        f"{name} changed from {before.get(name, 'nothing')} to {now.get(name, 'nothing')}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    ]
