"""Attribute values that have no text: tokens that lead back to the object while the process lives."""

import itertools
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Hashable, MutableMapping
from enum import Enum
from typing import Any

from .record import record

_PROCESS = secrets.token_hex(4)
_LABEL_LENGTH = 40
_KEPT = 256


@record
class Opaque:
    """What a token stands for in a process that has never seen its object. It prints as the token read.

    A program that holds one can be read, compared and transformed, but not run.
    """

    token: str


class _Registry:
    """Gives objects tokens and finds them again; equal objects of one class share one.

    Objects are held weakly where Python allows that; of tuples, slotted objects and the like those stay that
    were asked for last.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._serial = itertools.count()
        self._tokens: dict[type, MutableMapping[Any, str]] = {}
        self._weak: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def token(self, value: Any) -> str:
        with self._lock:
            # The class is part of the key: members of two integer enumerations may be equal.
            weakly = _weakly(value)
            tokens = self._tokens.setdefault(type(value), weakref.WeakKeyDictionary() if weakly else {})
            key = _key(value)
            token = tokens.get(key)
            if token is None:
                token = tokens[key] = f"{_label(value)}#{next(self._serial)}@{_PROCESS}"
                (self._weak if weakly else self._kept)[token] = value
            if not weakly:
                self._kept.move_to_end(token)
                while len(self._kept) > _KEPT:
                    _, oldest = self._kept.popitem(last=False)
                    del self._tokens[type(oldest)][_key(oldest)]
            return token

    def find(self, token: str) -> Any:
        with self._lock:
            found = self._weak.get(token)
            return self._kept.get(token) if found is None else found


class _ById:
    """A key for an unhashable object, which it keeps alive so that its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ById) and other.value is self.value


_REGISTRY = _Registry()


def opaque_token(value: Any) -> str:
    """The token of an object, the same each time."""
    return value.token if isinstance(value, Opaque) else _REGISTRY.token(value)


def opaque_value(token: str) -> Any:
    """The object with that token, or an `Opaque` where this process has none."""
    found = _REGISTRY.find(token)
    return Opaque(token) if found is None else found


def _key(value: Any) -> Any:
    return value if _hashable(value) else _ById(value)


def _hashable(value: Any) -> bool:
    if not isinstance(value, Hashable):
        return False
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _weakly(value: Any) -> bool:
    return type(value).__weakrefoffset__ != 0 and _hashable(value)


def _label(value: Any) -> str:
    if isinstance(value, Enum):
        name = f"{type(value).__name__}.{value.name}"
    else:
        name = getattr(value, "__name__", None) or type(value).__name__
    return "".join(c if c.isalnum() or c in "._<>-" else "_" for c in str(name)[:_LABEL_LENGTH])
