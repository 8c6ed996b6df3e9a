"""How a transformed function is called: eagerly through a plan, or bound into the current JAX trace."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import argument_names, check_leaves
from stategrad.state import LOCK
from stategrad.trace import trace

from .eager import call
from .plan import Plan, Uncovered, bind_under_trace
from .staging import Recipe, Staged, stage
from .static import Static


class Engine:
    """Runs what `recipe` makes of `fn`.

    Args:
        retrace: trace at every call, so that a changed closure, global or flag is always seen; programs that
            come out equal are compiled once. Without it, one trace for each combination of argument types, as
            in jax.jit.
        donate: whether the buffers of written States may be reused.
    """

    def __init__(
        self, fn: Callable[..., Any], recipe: Recipe, static: Static, *, retrace: bool, donate: bool
    ) -> None:
        self.fn = fn
        self.recipe = recipe
        self.static = static
        self.retrace = retrace
        self.donate = donate
        self._plan: Plan | None = None
        self._traced_before = False
        self._pending: Staged | None = None

    def stage(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Staged:
        """Traces `fn` on these arguments (static ones hidden) and runs the passes."""
        fresh, self._traced_before = self._traced_before, True
        traced = trace(self.fn, args, kwargs, fresh=fresh)
        return stage(traced, self.recipe.derive(traced))

    def __call__(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if self.static:
            args, kwargs = self.static.hide(args, kwargs)
        if not compat.is_eager():
            return bind_under_trace(self.stage(args, kwargs), args, kwargs)
        if self.retrace:
            return call(self.fn, self.recipe, args, kwargs)
        with LOCK:
            return self._call_planned(args, kwargs)

    # ------------------------------------------------------------------ one trace per combination of types
    def _call_planned(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        plan = self._plan
        if plan is None or not plan.current:
            plan = self._plan = Plan((), (), self._stage_once, self.donate)
        while True:
            try:
                return plan.call(args, kwargs)
            except Uncovered as missing:
                self._pending = missing.staged
                plan = self._plan = plan.widened(missing.staged)
            except TypeError:
                leaves = jax.tree.leaves((args, kwargs))
                check_leaves(leaves, argument_names(self.fn, args, kwargs), self.fn, "argument")
                raise

    def _stage_once(self, args: Any, kwargs: Any) -> Staged:
        """The program that a plan found too narrow is not traced a second time for the wider plan."""
        pending, self._pending = self._pending, None
        return pending if pending is not None else self.stage(args, kwargs)
