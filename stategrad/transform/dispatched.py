"""Transformed functions that an engine runs."""

from collections.abc import Callable
from typing import Any

from stategrad.collecting import collector_paused

from .engine import Engine
from .stages import Lowered, Staging
from .transformed import Transformed


class Dispatched(Transformed):
    """A function made from another one, that is traced, compiled, and called through an `Engine`.

    What a call runs stands in the slot `__call__` of the object, where the engine puts what is right for the
    next call: Python finds it there without running a method first.
    """

    __slots__ = ("__call__",)
    __call__: Callable[..., Any]
    _engine: Engine

    def _run_by(self, engine: Engine) -> None:
        self._engine = engine
        engine.serve(self)

    def next_call(self, call: Callable[..., Any]) -> None:
        """What the next call runs; a subclass may have a `__call__` around it."""
        _SLOT.__set__(self, call)

    def explain(self) -> str:
        """Why the function was traced, each time it was: a sentence a line, the latest last."""
        return self._engine.retraces.explain()

    def trace(self, *args: Any, **kwargs: Any) -> Staging:
        """Traces for these arguments (arrays or `jax.ShapeDtypeStruct`) without running: `.module`,
        `.run_passes(hook)`, `.lower()`, …
        """
        return Staging(self._engine, args, kwargs)

    @collector_paused()
    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """Lowers to StableHLO for these arguments: `.as_text()`, `.compile()`, as on a `jax.jit` function."""
        return self.trace(*args, **kwargs).lower()


_SLOT: Any = vars(Dispatched)["__call__"]
