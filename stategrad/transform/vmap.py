"""`vmap`: a stateful function on many inputs at once, by the batching pass."""

import functools
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any

from stategrad.arguments import function_name
from stategrad.state import State

from .engine import Engine
from .lanes import Lanes, MapOptions
from .recipes import AsIs
from .stages import Stageable
from .static import Static
from .wanted import WantedStates


class Vmapped(Stageable):
    """A function on many inputs at once; see `vmap`."""

    def __init__(
        self, fn: Callable[..., Any], mapping: MapOptions, argnums: Any, argnames: Any, debug_nan: bool
    ) -> None:
        self._look_like(fn)
        self._fn, static = fn, Static.of(fn, argnums, argnames)

        @functools.wraps(fn)
        def mapped(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = static.hide(args, kwargs)
            return Lanes(fn, mapping, args, kwargs).run()

        self._engine = Engine(mapped, AsIs(), static, debug_nan=debug_nan)

    def __repr__(self) -> str:
        return f"<vmap of {function_name(self._fn)}>"


def vmap(
    fn: Callable[..., Any] | None = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    *,
    axis_size: int | None = None,
    axis_name: Hashable = None,
    in_states: Any = None,
    out_states: Any = None,
    debug_nan: bool = False,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """A function on many inputs at once, as `jax.vmap`, that may read and write States; also a decorator.

    All elements share the States that are not listed: they read one value, and may only write what is the
    same for all. A `RandomState` that is not listed and from which the function draws is split: each element
    draws numbers of its own, and the State is advanced once.

    Args:
        fn: takes and returns pytrees of arrays.
        in_axes: the axis of each positional argument that is mapped: an integer, None for an argument that is
            the same for all, or a prefix of the arguments. Arguments by name are mapped along axis 0.
        out_axes: where the results carry the new axis; None for what is the same for all.
        axis_size: how many elements there are, where nothing else says so.
        axis_name: a name for the axis. The function may work along it: `jax.lax.psum(x, name)`, and so on. A
            sum or mean over it is the same for all elements, so it may be written to a State that they share.
        in_states: a State, or any container of them, whose value carries a leading axis: each element reads
            and writes its own slice.
        out_states: States that all elements find as they are, and that hold a value for each of them, along a
            new leading axis, at the end.
        debug_nan: raise `NonFiniteError`, and commit nothing, if something is not finite.
        static_argnums, static_argnames: arguments that are part of the program.

    Raises:
        TraceError: an axis does not exist, or mapped axes differ in length.
        StateError: a value that differs between the elements is written to a State that they share.
        GradientError: something in `in_states` or `out_states` is no State.
    """
    states = (_states(in_states, "in_states"), _states(out_states, "out_states"))
    mapping = MapOptions(in_axes, out_axes, axis_size, *states, axis_name)

    def mapped(fn: Callable[..., Any]) -> Vmapped:
        return Vmapped(fn, mapping, static_argnums, static_argnames, debug_nan)

    return mapped if fn is None else mapped(fn)


def _states(given: Any, what: str) -> tuple[State, ...]:
    wanted = WantedStates.of(given, what)
    return () if wanted is None else tuple(dict.fromkeys(wanted.states))
