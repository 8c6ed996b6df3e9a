"""One MLIR context for many programs: registering dialects takes milliseconds.

Each thread has its own, so that no two programs are built in one at a time. Types, locations and constants
stay in a context: it is given up after some programs, or after one with a large constant. The modules made in
it keep it as long as they live. Releases of JAX that share contexts themselves, in the same way, are left
alone.
"""

import threading
from typing import Any

from jax._src.interpreters import mlir

_PROGRAMS = 16
_LARGE = 1 << 20


class _Shared(threading.local):
    context: Any = None
    programs: int = 0
    wanted: bool = False


_shared = _Shared()


def share_context() -> None:
    """To be called where JAX traces a program of ours: when it lowers that, it takes the shared context."""
    _shared.wanted = True


def note_constant(size: int) -> None:
    """A constant of that many bytes has been made in the context: a large one is not to stay for long."""
    if size >= _LARGE:
        _shared.context = None


def _context() -> Any:
    if not _shared.wanted:
        return _make()
    _shared.wanted = False
    if _shared.context is None or _shared.programs >= _PROGRAMS:
        _shared.context, _shared.programs = _make(), 0
    _shared.programs += 1
    return _shared.context


_make = getattr(mlir, "_create_ir_context", mlir.make_ir_context)
if _make is mlir.make_ir_context:
    mlir.make_ir_context = _context
