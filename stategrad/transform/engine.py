"""How a transformed function is called: eagerly through a plan, or bound into the current JAX trace."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from stategrad.arguments import argument_names, check_leaves, function_name
from stategrad.errors import NonFiniteError
from stategrad.guard_search import guards_of
from stategrad.guards import Guards
from stategrad.jax_compat import EAGER, TRACE
from stategrad.state import LOCK, refuse_in_callbacks
from stategrad.state_primitives import thread
from stategrad.trace import trace

from .compiled import Mismatch, forget, signature_key
from .plan import Plan, bind_under_trace
from .planning import plan_of
from .repeated import repeated
from .retraces import Retraces
from .staging import Recipe, Staged, derive, stage
from .static import Static
from .trips import refuse_under_trace

_KEPT_VERSIONS = 16
_KEPT_PLANS = 512


class _Version:
    """The function as it is while certain closure values, globals and flags are what they are.

    Attributes:
        plans: one for each signature, the one used last in front.
        known: those that ran, by the key of the arguments.
    """

    __slots__ = ("guards", "known", "plans")

    def __init__(self, guards: Guards) -> None:
        self.guards = guards
        self.plans: list[Plan] = []
        self.known: dict[Any, Plan] = {}

    def call_known(self, args: Any, kwargs: Any) -> Any:
        """Calls the plan that ran on such arguments the last time.

        Raises:
            Mismatch: there is none, or it is not for what States hold now; nothing has happened.
        """
        plan = self.known.get(signature_key(args, kwargs))
        if plan is None:
            raise Mismatch("no plan is known for these arguments")
        return plan.call(args, kwargs)

    def likely(self, args: Any, kwargs: Any) -> Iterator[Plan]:
        """The plans that are for such arguments, if all else is as they need it."""
        for plan in list(self.plans):
            if plan.compiled.signature.resembles(args, kwargs):
                yield plan

    def ran(self, plan: Plan, args: Any, kwargs: Any) -> None:
        """Takes down which plan has run on which arguments."""
        if plan in self.plans:
            self.plans.remove(plan)
        self.plans.insert(0, plan)
        if len(self.plans) > _KEPT_PLANS or len(self.known) > _KEPT_PLANS:
            del self.plans[_KEPT_PLANS:]
            self.known.clear()
        self.known[signature_key(args, kwargs)] = plan


class Engine:
    """Runs what `recipe` makes of `fn`.

    It is traced once for each combination of argument types, as in jax.jit, and anew when a value changes
    that the function reads from a closure, a global, a default or an attribute. Programs that come out equal
    are compiled once.

    Args:
        donate: whether the buffers of written States may be reused.
        inline: inside of a trace of ours, call the function as it is.
        debug_nan: look at every result before it is returned or committed.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        recipe: Recipe,
        static: Static,
        *,
        donate: bool = False,
        inline: bool = False,
        debug_nan: bool = False,
    ) -> None:
        self.fn = fn
        self.recipe = recipe
        self.static = static
        self.donate = donate and not debug_nan
        self.inline = inline and not debug_nan
        self.debug_nan = debug_nan
        self.retraces = Retraces(fn)
        self._has_static = bool(static)
        self._versions: list[_Version] = []
        self._owner: Callable[[], Any] = type(None)
        self._forget()

    def serve(self, owner: Any) -> None:
        """Tells an object what its next call runs, now and whenever that becomes something else."""
        self._owner = weakref.ref(owner)
        self._next_call(self.call)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the function, or binds its program into the trace that is current."""
        if TRACE.value is not EAGER:
            return self._under_trace(args, kwargs)
        if self._has_static:
            args, kwargs = self.static.hide(args, kwargs)
        refuse_in_callbacks()
        with LOCK:
            try:
                if self._same_as_before():
                    return self._call_again(args, kwargs)
                return self._call_other(args, kwargs)
            except Mismatch:
                return self._call_other(args, kwargs)
            except TypeError:
                self._check(args, kwargs)
                raise

    def stage(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Staged:
        """Traces `fn` on these arguments (static ones hidden) and runs the passes."""
        traced = trace(self.fn, args, kwargs)
        self.retraces.traced(traced, args, kwargs, "it is called inside of another trace")
        return stage(traced, derive(self.recipe, traced))

    # ------------------------------------------------------------------ inside of other traces
    def _under_trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.inline and thread.frame is not None:
            return self.fn(*args, **kwargs)  # it becomes part of the program that is being traced
        if self.debug_nan:
            refuse_under_trace(function_name(self.fn))
        args, kwargs = self.static.hide(args, kwargs)
        return bind_under_trace(self.stage(args, kwargs), args, kwargs)

    # ------------------------------------------------------------------ other values, signatures, States
    def _remember(self, version: "_Version", plan: Plan, args: Any, kwargs: Any) -> None:
        """The next call tries this plan first; if there are more of them, the one for its arguments."""
        version.ran(plan, args, kwargs)
        self._same_as_before, self._call_again = version.guards.check, version.call_known
        if len(version.plans) == 1:
            self._call_again = plan.call
            if plan.keeps and not self._has_static:
                same = version.guards.check
                self._next_call(
                    repeated(plan.operands, plan.jitted, plan.build, same, self.call, plan.note_lost)
                )

    def _forget(self) -> None:
        """The next call looks for a plan."""
        self._same_as_before: Callable[[], bool] = bool
        self._call_again: Callable[..., Any] = self._call_other
        self._next_call(self.call)

    def _next_call(self, call: Callable[..., Any]) -> None:
        owner = self._owner()
        if owner is not None:
            owner.next_call(call)

    def _call_other(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call for which there may be no plan yet, or more than one."""
        self._check(args, kwargs)
        self._forget()
        version, why = self._find_version(), None
        for plan in version.likely(args, kwargs):
            try:
                found = plan.call(args, kwargs)
            except Mismatch as mismatch:
                why = mismatch.changed
            else:
                self._remember(version, plan, args, kwargs)
                return found
        traced = trace(self.fn, args, kwargs)
        self.retraces.traced(traced, args, kwargs, why)
        plan = plan_of(traced, self.recipe, args, kwargs, donate=self.donate, watched=self.debug_nan)
        try:
            found = plan.call(args, kwargs)
        except NonFiniteError:
            self._remember(version, plan, args, kwargs)
            raise
        except BaseException:
            forget(plan.compiled)  # JAX takes no second try at what was interrupted
            raise
        self._remember(version, plan, args, kwargs)
        return found

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        leaves = jax.tree.leaves((args, kwargs))
        check_leaves(leaves, argument_names(self.fn, args, kwargs), self.fn, "argument")

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
            version = _Version(guards_of(self.fn))
        self._versions.insert(0, version)
        del self._versions[_KEPT_VERSIONS:]
        return version
