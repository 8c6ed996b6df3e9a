"""What transformed functions have in common: as methods, in copies and in pickles they are made anew.

Argument numbers and axes are those of the bound method, whether a transform is a decorator in the class or is
applied to `obj.method`: they start after `self`.
"""

import functools
from typing import Any, ClassVar, Self

from stategrad.errors import TraceError
from stategrad.graph import METHODS
from stategrad.pickles import path_of
from stategrad.user_frame import user_line


class Transformed:
    """A function made from another one, its first argument, and options."""

    stands_for_its_function: ClassVar[bool] = True
    """Who looks for States in an object finds those of the function here, and nothing else."""

    _made_from: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **options: Any) -> Any:
        made = super().__new__(cls)
        made._made_from = args, options
        return made

    def _look_like(self: Any, fn: Any) -> None:
        """Takes name, documentation and attributes of the function."""
        functools.update_wrapper(self, fn, updated=() if isinstance(fn, Transformed) else ("__dict__",))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None or not hasattr(self._made_from[0][0], "__get__"):
            return self
        methods = _methods_of(instance)
        found = methods.made.get(self)
        if found is None:
            found = methods.made[self] = self._of(instance)
        return found

    def _of(self, instance: Any) -> Self:
        """The same of the method that the function is of an object."""
        (fn, *rest), options = self._made_from
        return type(self)(fn.__get__(instance), *rest, **options)

    def __reduce__(self) -> Any:
        path = path_of(self)
        if path is not None:
            return path[1]  # a decorated function of a module
        return _made, (type(self), *self._made_from)


def _made(cls: type[Transformed], args: tuple[Any, ...], options: dict[str, Any]) -> Transformed:
    return cls(*args, **options)


class Methods:
    """The transformed methods of an object, which keeps them itself: each holds on to the object, and
    anything else that kept one would keep the object alive. Copies of the object, and pickles, start without.
    """

    __slots__ = ("made", "owner")

    def __init__(self, owner: Any = None) -> None:
        self.owner = owner
        self.made: dict[Transformed, Any] = {}

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
            f"a {type(instance).__name__} cannot keep its transformed methods{user_line()}, its class has "
            'only __slots__; add "__dict__" to them, or transform `obj.method` once and keep that'
        ) from None
