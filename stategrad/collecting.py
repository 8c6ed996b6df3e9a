"""Python's garbage collector, held back while a program is traced, transformed and lowered.

A compiler makes many objects that stay, and little garbage. When they have grown by a quarter, Python
searches all there is for cycles, the whole of JAX included: a tenth of a second, for nothing.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Inside, nothing is searched for garbage cycles, unless something asks for it; also a decorator."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
