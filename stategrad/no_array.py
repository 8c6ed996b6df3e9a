"""Errors for those who forget `.value`: a State is a place, not the array in it."""

from typing import Any, NoReturn, Protocol

from .errors import StateError
from .user_frame import user_line

_BINARY = "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift divmod".split()
_OTHERS = "neg pos abs invert lt le gt ge getitem len float int complex array".split()


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class NotAnArray:
    """Refuses to be computed with, indexed, compared by size, and taken for a truth value."""

    __slots__ = ()

    def __bool__(self: _Named) -> NoReturn:
        raise StateError(
            f"the State {self.name!r} is taken for a truth value{user_line()}; use its `.value`, or "
            "compare the State with None"
        )

    def __setitem__(self: _Named, index: Any, value: Any) -> NoReturn:
        raise StateError(
            f"an element of the State {self.name!r} is assigned{user_line()}; write it all back, as in "
            "`state.value = state.value.at[i].set(x)`"
        )


def _refusing(name: str) -> Any:
    def refuse(self: _Named, *_: Any, **__: Any) -> NoReturn:
        raise StateError(
            f"the State {self.name!r} is used as an array ({name}){user_line()}; use its `.value`"
        )

    refuse.__name__ = refuse.__qualname__ = name
    return refuse


for _name in (*_BINARY, *(f"r{name}" for name in _BINARY), *_OTHERS):
    setattr(NotAnArray, f"__{_name}__", _refusing(f"__{_name}__"))
