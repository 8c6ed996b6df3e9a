"""`checkpoint`: a function that the backward pass computes again. And `stop_gradient`."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.arguments import shown
from stategrad.errors import TraceError
from stategrad.user_frame import user_line

from .loop_checks import named_as
from .static import Static
from .transformed import Transformed


class Checkpointed(Transformed):
    """A function that is computed again for its derivative; see `checkpoint`."""

    def __init__(
        self, fn: Callable[..., Any], policy: Any, prevent_cse: bool, argnums: Any, argnames: Any
    ) -> None:
        if not callable(fn):
            raise TraceError(f"checkpoint of {fn!r} of type {type(fn).__name__}, not a function{user_line()}")
        self._look_like(fn)
        self._fn = fn
        self._options: dict[str, Any] = {"policy": policy, "prevent_cse": prevent_cse}
        self._static = Static.of(fn, argnums, argnames)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if compat.is_eager():
            return self._fn(*args, **kwargs)
        if self._static:
            args, kwargs = self._static.hide(args, kwargs)

        # A new function each time: JAX keeps bodies by identity, and what this one closes over may change.
        def fresh(*args: Any, **kwargs: Any) -> Any:
            given, named = shown((args, kwargs))
            return self._fn(*given, **named)

        return jax.checkpoint(named_as(self._fn, fresh), **self._options)(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<stategrad.checkpoint of {getattr(self._fn, '__qualname__', self._fn)}>"


def checkpoint(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    policy: Callable[..., bool] | None = None,
    prevent_cse: bool = True,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """A function whose intermediate values are not saved for the backward pass but computed again; also a
    decorator.

    What it writes to States and prints happens once, in the forward pass. When it is computed again it sees
    the States as they were then. Outside of any trace it is the function itself.

    Args:
        fn: takes and returns pytrees of arrays.
        policy, prevent_cse: as for `jax.checkpoint`, for gradients that JAX takes. stategrad's own gradients
            save only the arguments, and the States that are read.
        static_argnums, static_argnames: arguments that are part of the program: hashable.
    """

    def checkpointed(fn: Callable[..., Any]) -> Checkpointed:
        return Checkpointed(fn, policy, prevent_cse, static_argnums, static_argnames)

    return checkpointed if fn is None else checkpointed(fn)


remat = checkpoint
"""Another name of `checkpoint`."""


def stop_gradient(x: Any) -> Any:
    """The same pytree of arrays as a constant for every derivative."""
    return jax.tree.map(jax.lax.stop_gradient, x)
