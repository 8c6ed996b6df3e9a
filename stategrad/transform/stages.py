"""Looking at a transformed function without running it."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import jax

from stategrad.arguments import function_name
from stategrad.collecting import collector_paused
from stategrad.errors import StateError, TraceError
from stategrad.ir import Function, Module, to_text
from stategrad.passes import Hook
from stategrad.state import LOCK, refuse_in_callbacks
from stategrad.trace import trace
from stategrad.user_frame import user_line

from .compiled import Compiled, Entry, Mismatch, Signature
from .engine import Engine
from .plan import Plan
from .staging import Derived, Staged, derive, module_of, stage


class Staging:
    """A function traced for some arguments; nothing runs and no State changes.

    Attributes:
        module: the IR before any pass.
        program: the pure IR function after all passes.
    """

    def __init__(self, engine: Engine, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self._engine = engine
        self._args, self._kwargs = engine.static.hide(args, kwargs)
        self._traced = trace(engine.fn, self._args, self._kwargs)

    @property
    def module(self) -> Module:
        return module_of(self._traced)

    @cached_property
    def _staged(self) -> Staged:
        return self.run_passes()

    @cached_property
    def _derived(self) -> Derived:
        return derive(self._engine.recipe, self._traced)

    @property
    def program(self) -> Function:
        return self._staged.program.lowered

    def run_passes(self, hook: Hook | None = None) -> Staged:
        """Runs the passes; `hook` sees the module after each, for printing, timing or dumping it."""
        return stage(self._traced, self._derived, hook)

    @collector_paused()
    def lower(self) -> "Lowered":
        """StableHLO, ready to be compiled.

        Raises:
            TraceError: the function has `debug_nan=True`, whose checks only a call makes.
        """
        if self._engine.debug_nan:
            raise TraceError(
                f"{function_name(self._engine.fn)} has debug_nan=True and cannot be lowered{user_line()}: a "
                "program compiled ahead of time is not watched; lower it without debug_nan"
            )
        staged, traced = self._staged, self._traced
        signature = Signature(self._args, self._kwargs)
        program = Compiled(staged, Entry.of(traced), signature, self._engine.donate)
        plan = Plan(program, traced, self._derived)
        with LOCK:
            operands = plan.example(self._args, self._kwargs)
        return Lowered(plan, plan.jitted.lower(*operands), self._engine)

    def as_text(self) -> str:
        """The IR before any pass, as text."""
        return to_text(self.module)

    __str__ = as_text


class Lowered:
    """A function lowered to StableHLO for some arguments; has all that JAX's own object of this kind has."""

    def __init__(self, plan: Plan, lowered: jax.stages.Lowered, engine: Engine) -> None:
        self._plan = plan
        self._lowered = lowered
        self._engine = engine

    def compile(self, *args: Any, **kwargs: Any) -> "Executable":
        """Compiles it; the arguments are those of JAX's method."""
        return Executable(self._plan, self._lowered.compile(*args, **kwargs), self._engine)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lowered, name)


class Executable:
    """A compiled function for arguments of one combination of types. A call reads the States and commits what
    it writes to them, as a call of the function itself does. Also has `as_text`, `cost_analysis`,
    `memory_analysis` and what else JAX's own object of this kind has.
    """

    def __init__(self, plan: Plan, compiled: jax.stages.Compiled, engine: Engine) -> None:
        self._plan = plan.running(compiled)
        self._compiled = compiled
        self._engine = engine

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._engine.static.hide(args, kwargs)
        refuse_in_callbacks()
        with LOCK:
            try:
                return self._plan.call(args, kwargs)
            except Mismatch as mismatch:
                raise StateError(
                    f"{mismatch.changed} since the function was lowered; lower it again"
                ) from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._compiled, name)


def make_ir(fn: Any) -> Any:
    """`make_ir(f)(*args)` is the IR of `f` for these arguments, before any pass, as a `Module`; `str` prints
    it.

    Raises:
        TraceError: an argument or result is no array.
        StateError: a State is used where or how that is not possible.
    """

    def made(*args: Any, **kwargs: Any) -> Module:
        return module_of(trace(fn, args, kwargs))

    return made
