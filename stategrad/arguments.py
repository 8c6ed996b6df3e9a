"""Arguments and results of traced functions: what they are called, and whether they are arrays."""

import functools
import inspect
from collections.abc import Callable, Sequence
from types import CodeType
from typing import Any

import jax

from stategrad.ir import UNKNOWN, Location, Source

from . import graph
from . import jax_compat as compat
from .errors import TraceError
from .state import State
from .user_frame import shortened, user_line


@jax.tree_util.register_pytree_node_class
class Hidden:
    """A static argument on its way through a pytree: no leaf of it, compared with the structure."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def tree_flatten(self) -> tuple[tuple[()], Any]:
        return (), (type(self.value), self.value)  # 1 is not 1.0

    @classmethod
    def tree_unflatten(cls, fixed: Any, leaves: Any) -> "Hidden":
        return cls(fixed[1])


def shown(arguments: Any) -> Any:
    """Arguments with the hidden ones as the user passed them."""
    return jax.tree.map(
        lambda a: a.value if isinstance(a, Hidden) else a, arguments, is_leaf=lambda a: isinstance(a, Hidden)
    )


def function_name(fn: Callable[..., Any]) -> str:
    """A name for the IR function: the Python function's."""
    name = getattr(fn, "__name__", type(fn).__name__)
    return "lambda" if name == "<lambda>" else identifier(name)


def code_of(fn: Callable[..., Any]) -> CodeType | None:
    """The code of a user's function, under partial, decorators, methods and objects that are called."""
    inner = inspect.unwrap(fn.func if isinstance(fn, functools.partial) else fn)
    called = getattr(inner, "__code__", None) or getattr(type(inner).__call__, "__code__", None)
    return called if isinstance(called, CodeType) else None


def definition(fn: Callable[..., Any]) -> Location:
    """Where the user defines a function."""
    code = code_of(fn)
    return UNKNOWN if code is None else Source(shortened(code.co_filename), code.co_firstlineno)


def stands_for(wrapper: Callable[..., Any], fn: Callable[..., Any], names: Sequence[str]) -> None:
    """Makes JAX's errors speak of `fn`, whose argument leaves have these names, where it traces `wrapper`."""
    code = code_of(fn)
    where = "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
    compat.call_in_errors(wrapper, function_name(fn), where, names)


def identifier(name: str) -> str:
    """A name that the IR's text can hold."""
    kept = "".join(c if (c.isalnum() and c.isascii()) or c in "_." else "_" for c in name)
    return kept if kept and not kept[0].isdigit() else f"_{kept}"


def argument_names(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> list[str]:
    """For each leaf of `(args, kwargs)` its path as text: `x`, `params['w']`, `args[2]`."""
    names: list[str] = []
    for name, value in _named(fn, args, kwargs):
        names.extend(leaf_paths(jax.tree.structure(value), name))
    return names


def static_values(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The static arguments by their names."""
    return {name: value.value for name, value in _named(fn, args, kwargs) if isinstance(value, Hidden)}


def _named(fn: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
    try:
        bound = inspect.signature(fn).bind_partial(*args)
        positional = [n for n, p in bound.signature.parameters.items() if p.kind in (0, 1)][: len(args)]
    except (TypeError, ValueError):
        positional = []
    rest = [f"args[{i}]" for i in range(len(positional), len(args))]
    return [*zip([*positional, *rest], args, strict=True), *sorted(kwargs.items())]


def leaf_paths(tree: Any, prefix: str) -> list[str]:
    """For each leaf of a pytree its path as text, after a prefix."""
    paths, _ = jax.tree_util.tree_flatten_with_path(tree.unflatten([0] * tree.num_leaves))
    return [prefix + jax.tree_util.keystr(path) for path, _ in paths]


def check_leaves(leaves: Sequence[Any], names: Sequence[str], fn: Callable[..., Any], what: str) -> None:
    """Checks that arguments or results are arrays.

    Raises:
        TraceError: one is a State, or nothing that JAX takes for an array.
    """
    for leaf, name in zip(leaves, names, strict=True):
        if isinstance(leaf, State):
            raise TraceError(_state_passed(leaf, name, fn, what))
        if not compat.is_array_like(leaf):
            advice = "; name it in static_argnums or static_argnames" if what == "argument" else ""
            if advice and graph.states(leaf):
                advice = "; it has States: close over it instead of passing it"
            raise TraceError(
                f"{what} {name!r} of {function_name(fn)} is {leaf!r} of type {type(leaf).__name__}, "
                f"not an array or a number{user_line()}{advice}"
            )


def _state_passed(state: State, name: str, fn: Callable[..., Any], what: str) -> str:
    instead = (
        "read it inside the function through its `.value`; a function may close over States"
        if what == "argument"
        else "return its `.value`, or nothing: the State itself is updated"
    )
    return f"{what} {name!r} of {function_name(fn)} is the State {state.name!r}{user_line()}; {instead}"
