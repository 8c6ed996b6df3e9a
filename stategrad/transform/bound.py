"""Transformed functions as methods: one transformed function for each object, kept as long as the object.

Argument numbers and axes are those of the bound method, whether a transform is a decorator in the class or is
applied to `obj.method`: they start after `self`.
"""

from collections.abc import Callable
from typing import Any

from stategrad.errors import TraceError
from stategrad.graph import METHODS
from stategrad.user_frame import user_line


class Bound:
    """Makes the function of one descriptor for each object that it is bound to.

    The object keeps it. Anything else that did would keep the object alive: the function holds its method.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def of(self, instance: Any) -> Any:
        """The function bound to `instance`; made at the first call. Objects are told apart by identity.

        Raises:
            TraceError: the object cannot keep it.
        """
        methods = _methods_of(instance)
        found = methods.made.get(self)
        if found is None:
            found = methods.made[self] = self._make(instance)
        return found


class Methods:
    """The transformed methods that an object has. Copies of the object, and pickles, start without."""

    __slots__ = ("made", "owner")

    def __init__(self, owner: Any = None) -> None:
        self.owner = owner
        self.made: dict[Bound, Any] = {}

    def __reduce__(self) -> Any:
        return Methods, ()


def _methods_of(instance: Any) -> Methods:
    try:
        methods = vars(instance).get(METHODS)
        if methods is None or methods.owner is not instance:  # the owner is another one in a shallow copy
            methods = Methods(instance)
            # What the class does when an attribute is set is not for this one.
            (type if isinstance(instance, type) else object).__setattr__(instance, METHODS, methods)
        return methods
    except (TypeError, AttributeError):
        raise TraceError(
            f"a {type(instance).__name__} cannot keep its transformed methods{user_line()}, because the class "
            'has only __slots__; add "__dict__" to them, or transform `obj.method` once and keep that'
        ) from None
