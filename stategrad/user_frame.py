"""The line of the user's program that an error or an operation belongs to."""

import contextlib
import functools
import itertools
import os
import sys
from types import FrameType
from typing import Any

import jax
import jaxlib

import stategrad.ir
import stategrad.passes
from stategrad.ir import UNKNOWN, Location, Source

_PACKAGES = (stategrad, stategrad.ir, stategrad.passes, jax, jaxlib)
_FOLDERS = tuple(os.path.join(path, "") for package in _PACKAGES for path in package.__path__)
_JAX = tuple(os.path.join(path, "") for path in jax.__path__)
_PLUMBING = (contextlib.__file__, functools.__file__)
_DEMO = os.path.join(stategrad.__path__[0], "demo.py")
"""A user's program that is installed with us."""


@functools.cache
def is_user_file(file: str) -> bool:
    """Whether a file belongs neither to stategrad nor to JAX nor to Python's own plumbing."""
    return file == _DEMO or not (file.startswith(_FOLDERS) or file in _PLUMBING)


def user_frame() -> FrameType | None:
    """The innermost frame of the user's program that is running now."""
    frame = sys._getframe(1)
    while frame is not None and not is_user_file(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def begun_by_jax() -> bool:
    """Whether JAX, and not the user's program, began what this thread runs."""
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(_JAX)


def user_line() -> str:
    """` (file.py:12)` for the innermost user's frame that is running now, or nothing."""
    frame = user_frame()
    return f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame else ""


def resolve_traceback(traceback: Any, otherwise: Location = UNKNOWN) -> Location:
    """The user's innermost frame in a traceback of JAX; its file relative to the working directory if it can
    be.
    """
    place = _place(traceback) if traceback is not None else None
    return otherwise.source if place is None else _source(os.getcwd(), *place)


@functools.lru_cache(maxsize=4096)
def _place(traceback: Any) -> tuple[str, int, int] | None:
    """File, line and column of the user's innermost frame. Tracebacks of one place are equal."""
    for code, at in zip(*traceback.raw_frames(), strict=True):
        if is_user_file(code.co_filename):
            line, _, column, _ = next(itertools.islice(code.co_positions(), at // 2, None))
            return code.co_filename, line or code.co_firstlineno, column or 0
    return None


@functools.lru_cache(maxsize=4096)
def _source(folder: str, file: str, line: int, column: int) -> Source:
    shown = os.path.relpath(file, folder) if file.startswith(os.path.join(folder, "")) else file
    return Source(shown, line, column)


def shortened(file: str) -> str:
    """A file name relative to the working directory, if it lies there."""
    return _source(os.getcwd(), file, 0, 0).file
