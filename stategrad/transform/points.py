"""Points that are looked at again: `jvp`, `vjp` and their like trace a function once for each signature."""

import dataclasses
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.guard_search import guards_of

from .compiled import Entry, Signature
from .point import Point
from .selection import Request
from .static import Static
from .wanted import WantedStates

_KEPT = 64


class _Known:
    """The points of one function, as long as it lives and nothing changes that it reads."""

    def __init__(self, fn: FunctionType) -> None:
        self.guards = guards_of(fn, weakly=True)
        self.points: dict[Any, tuple[Point, tuple[Any, ...]]] = {}


_known: weakref.WeakKeyDictionary[FunctionType, _Known] = weakref.WeakKeyDictionary()


def point_at(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    static: Static,
    request: Request,
    final_states: Any = None,
) -> Point:
    """`Point.at`, from an earlier trace of the same function if that is still right.

    Raises:
        GradientError, TraceError, StateError: as for `Point.at`.
    """
    args, kwargs = static.hide(args, kwargs)
    final = WantedStates.of(final_states)
    if not isinstance(fn, FunctionType) or not compat.is_eager():
        return Point.at(fn, args, kwargs, request, final)
    known = _known.get(fn)
    if known is None or not known.guards.check():
        known = _known[fn] = _Known(fn)
    try:
        key = Signature(args, kwargs).key, request, final
        found, held = known.points.get(key) or (None, None)
    except TypeError:  # no arrays, which is an error; or a container that has no hash
        return Point.at(fn, args, kwargs, request, final)
    if found is not None and held == _held(found):
        return dataclasses.replace(found, arguments=tuple(jax.tree.leaves((args, kwargs))))
    made = Point.at(fn, args, kwargs, request, final)
    known.points[key] = dataclasses.replace(made, arguments=()), _held(made)
    if len(known.points) > _KEPT:
        del known.points[next(iter(known.points))]
    return made


def _held(point: Point) -> tuple[Any, ...]:
    """What the States have to hold for a trace to be right: these structures and types."""
    leaves, states = Entry.of(point.traced).leaves, dict.fromkeys(_asked(point))
    states.update((leaf.state, None) for leaf in leaves)
    return tuple((s.structure, *((x.array.shape, x.array.dtype) for x in s.slots)) for s in states)


def _asked(point: Point) -> tuple[Any, ...]:
    wanted = (point.request.states, point.final)
    return tuple(s for each in wanted if each is not None for s in each.states)
