"""The line of the user's program that an error or an operation belongs to."""

import contextlib
import functools
import os
import sys
from types import FrameType

import jax
import jaxlib

import stategrad.ir
import stategrad.passes

_PACKAGES = (stategrad, stategrad.ir, stategrad.passes, jax, jaxlib)
_FOLDERS = tuple(os.path.join(path, "") for package in _PACKAGES for path in package.__path__)
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


def user_line() -> str:
    """` (file.py:12)` for the innermost user's frame that is running now, or nothing."""
    frame = user_frame()
    return f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame else ""
