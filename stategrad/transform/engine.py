"""How a transformed function is called: eagerly through a plan, or bound into the current JAX trace."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import argument_names, check_leaves, function_name
from stategrad.guards import Guards
from stategrad.state import LOCK, Locked
from stategrad.trace import trace

from .eager import call
from .plan import Plan, Uncovered, bind_under_trace
from .retraces import Retraces
from .staging import Recipe, Staged, stage
from .static import Static
from .trips import refuse_under_trace

_KEPT_VERSIONS = 16


@dataclass
class _Version:
    """The function as it is while certain closure values, globals and flags are what they are."""

    guards: Guards
    plan: Plan


class Engine:
    """Runs what `recipe` makes of `fn`.

    Args:
        retrace: trace at every call; programs that come out equal are compiled once. Without it, one trace
            for each combination of argument types, as in jax.jit, and a new one when a value changes that the
            function reads from a closure, a global, a default or an attribute.
        donate: whether the buffers of written States may be reused.
        debug_nan: look at every result before it is returned or committed; traces at every call.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        recipe: Recipe,
        static: Static,
        *,
        retrace: bool,
        donate: bool,
        debug_nan: bool = False,
    ) -> None:
        self.fn = fn
        self.recipe = recipe
        self.static = static
        self.retrace = retrace
        self.donate = donate
        self.debug_nan = debug_nan
        self.retraces = Retraces(function_name(fn))
        self._versions: list[_Version] = []
        self._pending: Staged | None = None

    def stage(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Staged:
        """Traces `fn` on these arguments (static ones hidden) and runs the passes."""
        traced = trace(self.fn, args, kwargs)
        self.retraces.traced(traced.signature())
        return stage(traced, self.recipe.derive(traced))

    def __call__(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if self.static:
            args, kwargs = self.static.hide(args, kwargs)
        if not compat.is_eager():
            if self.debug_nan:
                refuse_under_trace(function_name(self.fn))
            return bind_under_trace(self.stage(args, kwargs), args, kwargs)
        if self.retrace or self.debug_nan:
            return call(self.fn, self.recipe, args, kwargs, self.debug_nan)
        Locked.take()
        try:
            return self._call_planned(args, kwargs)
        finally:
            LOCK.release()

    # ------------------------------------------------------------------ one trace per combination of types
    def _call_planned(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        version = self._versions[0] if self._versions else None
        if version is None or not version.guards.hold():
            version = self._find_version()
        if not version.plan.current:
            version.plan = self._new_plan()
        while True:
            try:
                return version.plan.call(args, kwargs)
            except Uncovered as missing:
                self._pending = missing.staged
                version.plan = version.plan.widened(missing.staged)
            except TypeError:
                leaves = jax.tree.leaves((args, kwargs))
                check_leaves(leaves, argument_names(self.fn, args, kwargs), self.fn, "argument")
                raise

    def _new_plan(self) -> Plan:
        return Plan((), (), self._stage_once, self.donate, function_name(self.fn))

    def _find_version(self) -> _Version:
        """The version for the values as they are now: an earlier one, or a new one. It comes to the front."""
        for version in self._versions:
            if version.guards.broken() is None:
                self._versions.remove(version)
                break
        else:
            if self._versions:
                self.retraces.guard_broke(
                    self._versions[0].guards.broken() or "a value that it reads changed"
                )
            version = _Version(Guards.of(self.fn), self._new_plan())
        self._versions.insert(0, version)
        del self._versions[_KEPT_VERSIONS:]
        return version

    def _stage_once(self, args: Any, kwargs: Any) -> Staged:
        """The program that a plan found too narrow is not traced a second time for the wider plan."""
        pending, self._pending = self._pending, None
        return pending if pending is not None else self.stage(args, kwargs)
