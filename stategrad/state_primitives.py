"""The two JAX primitives behind `State.value`, and the guard that keeps JAX's transformations from losing an
effect.

A read or write is *direct* when user code runs it now. When JAX re-binds one while it transforms a body that
was traced before, nothing of ours runs: such a write would be lost or doubled without a word, so it is an
error here.
"""

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import jax_compat as compat
from .errors import StateError
from .user_frame import user_line

if TYPE_CHECKING:
    from .frame import Frame
    from .state import State


class CellId:
    """What reaches JAX's caches instead of a State, so that they keep no State alive. Compared by identity.

    `local` says that the State was created inside a trace and holds no value outside of it.
    """

    __slots__ = ("__weakref__", "local", "name", "ref")

    def __init__(self, state: "State", name: str, local: bool = False) -> None:
        self.ref = weakref.ref(state)
        self.name = name
        self.local = local

    def __repr__(self) -> str:
        return f"${self.name}"


class _Thread(threading.local):
    frame: "Frame | None" = None
    direct: bool = False


thread = _Thread()


@contextmanager
def direct() -> Iterator[None]:
    """Marks the binds inside as made by user code that runs now."""
    before, thread.direct = thread.direct, True
    try:
        yield
    finally:
        thread.direct = before


class _StatePrimitive(compat.Primitive):
    """Reads and writes of one leaf of a State: parameters `cell`, `leaf` = (version, index). `creates` marks
    the write with which a State begins that is created inside a trace.
    """

    def bind_with_trace(self, trace: Any, args: Any, avals: Any, params: Any, /) -> Any:
        return self._bind(trace, args, params, ())

    def _bind(self, trace: Any, args: Any, params: Any, below: tuple[Any, ...]) -> Any:
        """`below` are the transformations that the effect has come through on its way out to `trace`."""
        if compat.is_ad_trace(trace):
            return self._under_ad(trace, args, params, below)
        if compat.is_batch_trace(trace) and (self is read_p or thread.direct):
            args = [_unbatched(trace, x, params["cell"]) for x in args]
            return self._bind(trace.parent_trace, args, params, (*below, trace))
        if compat.is_staging_trace(trace):
            kept = self._kept_above(trace, params, below)
            if kept is not None:
                return kept
            if self is read_p:
                return compat.stage(trace, self, params["aval"], compat.STATE_READ, params)
        elif self is write_p and not thread.direct and not compat.is_eval_trace(trace):
            batched = compat.is_batch_trace(trace)
            raise _written_inside(
                params["cell"], "jax.vmap" if batched else f"a JAX transformation ({type(trace).__name__})"
            )
        return trace.process_primitive(self, args, params)

    def _under_ad(self, trace: Any, args: Any, params: Any, below: tuple[Any, ...]) -> Any:
        cell, key = params["cell"], (params["cell"], params["leaf"])
        frame, below = thread.frame, (*below, trace)
        if self is read_p:
            if thread.direct and key in _kept(trace):
                return _kept(trace)[key]
            if not thread.direct and frame is not None and frame.is_tainted(cell):
                raise _differentiated(cell, "is read again in control flow")
            return self._bind(trace.parent_trace, args, params, below)
        if frame is None or not thread.direct:
            raise _written_inside(cell, "jax.grad, jax.jvp or jax.vjp")
        primal, tangent = trace.to_primal_tangent_pair(args[0])
        if compat.is_zero_tangent(tangent):
            _kept(trace).pop(key, None)
            frame.untaint(cell, trace)
        else:
            _kept(trace)[key] = args[0]
            frame.taint(cell, trace)
        return self._bind(trace.parent_trace, (primal,), params, below)

    def _kept_above(self, trace: Any, params: Any, below: tuple[Any, ...]) -> Any:
        """The value that an enclosing differentiation wrote to this cell, if the cell holds one."""
        frame, cell, key = thread.frame, params["cell"], (params["cell"], params["leaf"])
        if frame is None or not thread.direct or cell not in frame.tainted:
            return None
        for above in compat.enclosing_traces(trace):
            if compat.is_ad_trace(above) and key in _kept(above):
                if self is read_p:
                    return _kept(above)[key]
                raise _differentiated(cell, "is written inside control flow")
        if frame.is_tainted(cell, below):
            raise _differentiated(cell, "is used inside a custom rule")
        return None


def _unbatched(trace: Any, x: Any, cell: CellId) -> Any:
    value, batched = compat.unbatched(trace, x)
    if batched:
        raise StateError(
            f"a batched value is written to the State {cell.name!r} under jax.vmap{user_line()}; "
            "return it from the mapped function and write it outside"
        )
    return value


def _kept(trace: Any) -> dict[Any, Any]:
    return trace.__dict__.setdefault("_stategrad_kept", {})


def _written_inside(cell: CellId, by: str) -> StateError:
    return StateError(
        f"the State {cell.name!r} is written under {by}, which would lose the write{user_line()}; "
        "use the transform of the same name in stategrad (stategrad.grad, stategrad.jit, …)"
    )


def _differentiated(cell: CellId, what: str) -> StateError:
    return StateError(
        f"the State {cell.name!r} holds a value that jax.grad, jax.jvp or jax.vjp differentiates, "
        f"and {what}{user_line()}; use stategrad.grad instead of JAX's transformation"
    )


read_p = _StatePrimitive("state_read")
write_p = _StatePrimitive("state_write")
write_p.multiple_results = True


def _read_type(*, cell: CellId, leaf: tuple[int, int], aval: Any, structure: Any) -> Any:
    return aval, {compat.STATE_READ}


def _write_type(x: Any, *, cell: CellId, leaf: tuple[int, int], creates: bool) -> Any:
    return [], {compat.STATE_WRITE}


def _read_now(*, cell: CellId, leaf: tuple[int, int], aval: Any, structure: Any) -> Any:
    state = cell.ref()
    if state is None or cell.local:
        raise StateError(f"the State {cell.name!r} lived only inside a traced function{user_line()}")
    return state.stored_leaf(leaf[1], aval, structure)


def _write_now(x: Any, *, cell: CellId, **params: Any) -> Any:
    raise _written_inside(cell, "a JAX transformation")


def _refuse_lowering(ctx: Any, *args: Any, cell: CellId, **params: Any) -> Any:
    raise StateError(
        f"the State {cell.name!r} is read or written under raw jax.jit, jax.export or an eager jax.lax loop, "
        f"with no stategrad transform around{user_line()}; use stategrad.jit, stategrad.grad, …, or the "
        "loop of the same name in stategrad (stategrad.scan, stategrad.cond, …)"
    )


compat.define_effectful(read_p, _read_type, _read_now, _refuse_lowering)
compat.define_effectful(write_p, _write_type, _write_now, _refuse_lowering)
