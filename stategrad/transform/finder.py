"""Looking at a function without running it: the States that it uses, the types that it gives."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Literal

import jax

from stategrad import jax_compat as compat
from stategrad.filters import Filter, to_predicate
from stategrad.ir import Effect
from stategrad.state import State
from stategrad.trace import Traced, trace

Usage = Literal["all", "read", "write", "both"]
ReturnType = Literal["dict", "list", "tuple"]
_USAGES = ("all", "read", "write", "both")
_RETURN_TYPES = ("dict", "list", "tuple")


class StateFinder:
    """Finds the States that a function uses: `StateFinder(fn)(*args)` traces `fn` for these arguments, and no
    State changes. They come in the order in which the function uses them first.

    Args:
        fn: any function that can be traced.
        filter: which States to give, as in `stategrad.filters`; None means all. A path is `(name,)`.
        usage: "read": those that are only read. "write": those that are written, read or not. "all": both
            together. "both": a dictionary `{"read": …, "write": …}`.
        return_type: what they come in.
        key_fn: for "dict", the key of a State: `(number, state) -> key`. By default the number, from 0. A key
            of None means the State's name, and a key that is taken gets `_1`, `_2`, … behind it.

    Raises:
        ValueError: `usage` or `return_type` is none of these.
        TypeError: `filter` is no filter.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        filter: Filter = None,
        *,
        usage: Usage = "all",
        return_type: ReturnType = "dict",
        key_fn: Callable[[int, State], Any] | None = None,
    ) -> None:
        for name, given, known in (("usage", usage, _USAGES), ("return_type", return_type, _RETURN_TYPES)):
            if given not in known:
                raise ValueError(
                    f"{name} of StateFinder is {given!r}, expected one of {', '.join(map(repr, known))}"
                )
        self.fn = fn
        self.usage = usage
        self.return_type = return_type
        self.key_fn = key_fn
        self._selects = to_predicate(... if filter is None else filter)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The States that `fn(*args, **kwargs)` would use; arguments may be `jax.ShapeDtypeStruct`.

        Raises:
            TraceError, StateError: `fn` cannot be traced.
        """
        used = states_used(trace(self.fn, args, kwargs))
        used = {s: written for s, written in used.items() if self._selects((s.name,), s)}
        groups = {
            "all": list(used),
            "read": [s for s, written in used.items() if not written],
            "write": [s for s, written in used.items() if written],
        }
        if self.usage == "both":
            return {name: self._packed(groups[name]) for name in ("read", "write")}
        return self._packed(groups[self.usage])

    def _packed(self, states: list[State]) -> Any:
        if self.return_type != "dict":
            return states if self.return_type == "list" else tuple(states)
        found: dict[Hashable, State] = {}
        for i, state in enumerate(states):
            found[_free(self._key(i, state), found)] = state
        return found

    def _key(self, number: int, state: State) -> Hashable:
        if self.key_fn is None:
            return number
        key = self.key_fn(number, state)
        if key is None:
            return state.name
        return key if isinstance(key, Hashable) else str(key)


def _free(key: Hashable, taken: Iterable[Hashable]) -> Hashable:
    """The key, or the first of `key_1`, `key_2`, … that is not taken."""
    free, n = key, 0
    while free in taken:
        n += 1
        free = f"{key}_{n}"
    return free


def states_used(traced: Traced) -> dict[State, bool]:
    """The States of outside that a traced function uses, by first use, and whether it writes them."""
    effects = traced.function.body.effects
    used: dict[State, bool] = {}
    for cell, leaf in traced.leaves.items():
        written = effects.get(cell, Effect.READ).changes
        used[leaf.state] = used.get(leaf.state, False) or written
    for retyped in traced.retyped:
        used[retyped.state] = True
    return used


def eval_shape(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What `fn(*args, **kwargs)` would give, as a pytree of `jax.ShapeDtypeStruct`; no State changes.

    Args:
        args, kwargs: pytrees of arrays or `jax.ShapeDtypeStruct`.

    Raises:
        TraceError, StateError: `fn` cannot be traced.
    """
    traced = trace(fn, args, kwargs)
    types = (v.type for v in traced.function.results[: traced.results])
    return traced.tree.unflatten([jax.ShapeDtypeStruct(t.shape, compat.jax_dtype(t.dtype)) for t in types])
