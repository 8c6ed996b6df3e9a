"""What is known about States while one function is traced."""

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from . import jax_compat as compat
from .errors import StateError
from .state_primitives import CellId, thread
from .user_frame import user_line

if TYPE_CHECKING:
    from .state import State, Structure


class Held(NamedTuple):
    """What a State holds at one point of a trace: its pytree structure, the types of its leaves, and which
    version of the cell that is. A write of another type starts a new version.
    """

    structure: "Structure"
    types: tuple[Any, ...]
    version: int = 0


class Frame:
    """One trace in progress; `parent` is the trace around it, if it runs inside one of ours."""

    def __init__(self, parent: "Frame | None") -> None:
        self.parent = parent
        self.seen: dict[CellId, State] = {}
        self.created: set[CellId] = set()
        self.retyped: dict[CellId, Held] = {}
        self.tainted: dict[CellId, list[weakref.ref[Any]]] = {}
        self.stack = ExitStack()
        self._root: Any = None

    def start(self) -> None:
        """Notes that the current JAX trace is the one of the function itself."""
        self._root = weakref.ref(compat.current_trace())

    @property
    def at_top(self) -> bool:
        """Whether the code that runs now is straight-line code of the traced function."""
        return self._root is not None and self._root() is compat.current_trace()

    def held(self, state: "State") -> Held | None:
        """What a State holds now, if that differs from what is stored, or it was created in this trace."""
        frame: Frame | None = self
        while frame is not None:
            if state.cell in frame.retyped:
                return frame.retyped[state.cell]
            frame = frame.parent
        return None

    def entry_version(self, cell: CellId) -> int | None:
        """The version of a cell that this trace found on entry; None if the cell began inside it."""
        if cell in self.created:
            return None
        frame = self.parent
        while frame is not None:
            if cell in frame.retyped:
                return frame.retyped[cell].version
            frame = frame.parent
        return None if cell.local else 0

    def hold(self, state: "State", held: Held) -> None:
        """Notes a new structure or type. Bodies that JAX has cached by identity must be traced again from
        here on.
        """
        self.retyped[state.cell] = held
        self.stack.enter_context(compat.fresh_context())

    # ---- values that an enclosing jax.grad differentiates: see state_primitives
    def taint(self, cell: CellId, trace: Any) -> None:
        if compat.leak_checking():
            raise StateError(
                f"the State {cell.name!r} is given a differentiated value under jax.grad while "
                f"JAX checks for leaked tracers{user_line()}; use stategrad.grad"
            )
        self.tainted.setdefault(cell, []).append(weakref.ref(trace))
        self.stack.enter_context(compat.fresh_context())

    def untaint(self, cell: CellId, trace: Any) -> None:
        if cell in self.tainted:
            self.tainted[cell] = [ref for ref in self.tainted[cell] if ref() is not trace]

    def is_tainted(self, cell: CellId, below: Sequence[Any] = ()) -> bool:
        """Whether a differentiation that is still running, other than those in `below`, wrote to the cell."""
        if self._tainting(cell, below):
            gc.collect()  # a finished trace may hang in a reference cycle
        return self._tainting(cell, below)

    def _tainting(self, cell: CellId, below: Sequence[Any]) -> bool:
        traces = [ref() for ref in self.tainted.get(cell, ())]
        return any(t is not None and all(t is not b for b in below) for t in traces)


@contextmanager
def tracing() -> Iterator[Frame]:
    """A new frame, current inside the block."""
    frame = Frame(thread.frame)
    before, thread.frame = thread.frame, frame
    direct_before, thread.direct = thread.direct, False
    try:
        # Under disable_jit JAX tries each condition of a loop on tracers, and forgets that it wrote States.
        with jax.disable_jit(False), frame.stack:
            yield frame
    finally:
        thread.frame, thread.direct = before, direct_before
