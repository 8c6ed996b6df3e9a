"""What of earlier traces a trace may use again: the bodies of loops and nested jits that JAX keeps.

JAX keeps them by the identity of their Python function. A body of a library's is the same at any time, and
tracing it again costs more than a small function of the user's. A body of the user's may have been traced for
Python values that are others by now.

So all our traces share one context, in which JAX keeps bodies for them alone, and note the user's bodies that
they find in their program. One that was noted before comes from an earlier trace: then the function is traced
again in a context of its own, where JAX has kept nothing.
"""

import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

from . import jax_compat as compat
from .import_functions import is_users
from .traced_programs import open_program


class Stale(Exception):
    """A body that JAX had kept is not what it would be now: everything must be traced anew, alone."""


_alone: "weakref.WeakSet[CodeType]" = weakref.WeakSet()
"""The code of functions whose programs hold bodies that others have too: to be traced alone at once."""


class _Shared(threading.local):
    """The context that the traces of one thread share, and the user's bodies that were traced in it."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.key = object()
        self.bodies: weakref.WeakSet[Any] = weakref.WeakSet()


_shared = _Shared()


def shares(fn: Callable[..., Any]) -> bool:
    """Whether it is worth trying to trace a function in the shared context."""
    return _code(fn) not in _alone


@contextmanager
def shared_context() -> Iterator[None]:
    """Inside, JAX finds the bodies that our traces before have left. A trace that fails leaves none: nobody
    has noted what it found.
    """
    try:
        with compat.keyed_context(_shared.key):
            yield
    except Stale:
        raise  # what it found is noted
    except BaseException:
        _shared.start()
        raise


def check_bodies(fn: Callable[..., Any], program: Any) -> None:
    """Notes the user's bodies in a program that was traced in the shared context.

    Raises:
        Stale: one of them is of an earlier trace.
    """
    found = {jaxpr for jaxpr in _bodies(program, set()) if is_users(jaxpr)}
    if _shared.bodies.isdisjoint(found):
        _shared.bodies.update(found)
        return
    code = _code(fn)
    if code is not None:
        _alone.add(code)
    raise Stale


def _bodies(program: Any, seen: set[Any]) -> Iterator[Any]:
    """The programs nested in a program, each once."""
    for equation in open_program(program)[0].eqns:
        for inner in compat.nested_programs(equation.params):
            jaxpr, _ = open_program(inner)
            if jaxpr not in seen:
                seen.add(jaxpr)
                yield jaxpr
                yield from _bodies(jaxpr, seen)


def _code(fn: Callable[..., Any]) -> CodeType | None:
    return getattr(inspect.unwrap(getattr(fn, "func", fn)), "__code__", None)
