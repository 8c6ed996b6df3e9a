"""Programs behind `jax.jit`, shared by all functions that come to the same one.

They hold no State and no array: a function that is gone takes what it closed over with it. Programs that hold
functions of the user's, host callbacks and derivative rules, live as long as somebody may call them.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import jax

from stategrad import jax_compat as compat
from stategrad.backend import Program
from stategrad.errors import TraceError
from stategrad.ir import Type, to_text
from stategrad.ir.record import record
from stategrad.passes import Pipeline
from stategrad.trace import Leaf, Traced

from .staging import Derived, Staged, module_of, stage

_KEPT = 256


class Mismatch(TraceError):
    """A program is called with what it was not traced for; nothing has happened.

    Attributes:
        changed: the State that has another structure now, in a sentence; None if it is something else.
    """

    def __init__(self, message: str, changed: str | None = None) -> None:
        super().__init__(message)
        self.changed = changed


class Signature:
    """What a program is for: the structure and types of arguments, weak ones too, and the settings of JAX."""

    __slots__ = ("key", "shapes", "tree")

    def __init__(self, args: Any, kwargs: Any) -> None:
        leaves, self.tree = jax.tree.flatten((args, kwargs))
        types = [jax.typeof(x) for x in leaves]
        self.shapes = [(t.shape, t.dtype) for t in types]
        weak = tuple(getattr(t, "weak_type", False) for t in types)
        self.key = self.tree, tuple(self.shapes), weak, compat.config_key()

    def resembles(self, args: Any, kwargs: Any) -> bool:
        """Whether arguments have this structure and these shapes: cheap, and not the last word."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        return tree == self.tree and all(
            getattr(x, "shape", ()) == shape and getattr(x, "dtype", dtype) == dtype
            for x, (shape, dtype) in zip(leaves, self.shapes, strict=True)
        )


def signature_key(args: Any, kwargs: Any) -> Any:
    """A key that is quickly made, and tells arguments apart as far as they call for different programs."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    return tree, *map(_kind, leaves)


def _kind(leaf: Any) -> Any:
    shape = getattr(leaf, "shape", None)
    return (
        type(leaf)
        if shape is None
        else (shape, getattr(leaf, "dtype", None), getattr(leaf, "weak_type", False))
    )


class Compiled:
    """A program behind `jax.jit`, for arguments of one signature.

    `jitted([given], [args, kwargs, read])` gives the new values of the outputs, and the results of the
    function. `given` are the State leaves that may be donated, one for each output, or none; `read` the
    others, and then the arrays that the function closes over; it is left out if there are none.

    Attributes:
        program: pure; its operands are the inputs, what the function closes over, and the argument leaves.
        inputs, outputs: the State leaves that it reads and writes, by number among those of `Entry`.
        given, read: the operands of `jitted` that are State leaves, by number. They are all those whose types
            the trace looked at, used or not, so that JAX compares their types at each call.
        donates: whether XLA may reuse the buffers of `given`.
        wired: the program has one more result, which says whether the others are finite.
    """

    def __init__(
        self, staged: Staged, entry: "Entry", signature: Signature, donate: bool, wired: bool = False
    ) -> None:
        number = {leaf: i for i, leaf in enumerate(entry.leaves)}
        self.program: Program = staged.program
        self.inputs, self.outputs = (
            tuple(number[x] for x in side) for side in (staged.inputs, staged.outputs)
        )
        self.donates = donate and staged.program.donatable
        self.given = self.outputs if self.donates else ()
        self.read = tuple(i for i in number.values() if i not in set(self.given))
        self.wired = wired
        self.signature, self._types = signature, entry.types
        name = self.program.function.name
        self.jitted = jax.jit(_named(self._run, name), donate_argnums=(0,) if self.donates else ())

    @cached_property
    def undonated(self) -> Any:
        """As `jitted`, but the operands stay as they are."""
        return jax.jit(_named(self._run, self.program.function.name))

    def _run(self, given: list[Any], args: Any, kwargs: Any, read: Sequence[Any]) -> tuple[Any, Any]:
        """What jax.jit traces. All containers are built in: JAX makes them in C++, without a bytecode in
        which an interrupt could come.
        """
        if Signature(args, kwargs).key != self.signature.key:
            raise Mismatch(f"{self.program} is called with arguments of other types than it was traced for")
        values = dict(zip((*self.given, *self.read), (*given, *read), strict=False))
        if any(compat.type_of_aval(jax.typeof(values[i])) != t for i, t in enumerate(self._types)):
            raise Mismatch(f"{self.program} is called with States of other types than it was traced for")
        closed_over = read[len(self.read) :]
        compat.share_context()
        operands = [*(values[i] for i in self.inputs), *closed_over, *jax.tree.leaves((args, kwargs))]
        found = list(self.program.bind(*operands))
        last = len(found) - self.wired
        first = last - len(self.outputs)
        return found[first:last], [*found[:first], *found[last:]]


def _named(run: Callable[..., Any], name: str) -> Callable[..., Any]:
    def named(given: list[Any], rest: list[Any], /) -> Any:
        args, kwargs, *read = rest
        return run(given[0], args, kwargs, read[0] if read else ())

    named.__name__ = named.__qualname__ = name
    return named


@record
class Entry:
    """The State leaves whose types a trace looked at, and these types."""

    leaves: tuple[Leaf, ...]
    types: tuple[Type, ...]

    @staticmethod
    def of(traced: Traced) -> "Entry":
        """Those that the function touches, and those of States that it leaves with another type."""
        found = {leaf: cell.type for cell, leaf in traced.leaves.items()}
        for state in (r.state for r in traced.retyped):
            for i, slot in enumerate(state.slots):
                found.setdefault(Leaf(state, i), compat.type_of_aval(jax.typeof(slot.array)))
        return Entry(tuple(found), tuple(found.values()))


_compiled: dict[Any, Compiled] = {}
_with_functions: WeakValueDictionary[Any, Compiled] = WeakValueDictionary()


def compiled(
    traced: Traced, derived: Derived, signature: Signature, donate: bool, wired: bool = False
) -> Compiled:
    """The program for a traced function; the one that there is, if the same has been compiled before."""
    entry = Entry.of(traced)
    text = to_text(module_of(traced), locations=wired)
    passes = str(Pipeline(derived.passes)), derived.residuals
    key = hashlib.sha256(text.encode()).digest(), *passes, signature.key, entry.types, donate, wired
    found = _compiled.pop(key, None) or _with_functions.get(key)
    if found is None:
        staged = stage(traced, derived, wired=wired)
        found = Compiled(staged, entry, signature, donate, wired)
    if not found.program.self_contained:
        _with_functions[key] = found
        return found
    _compiled[key] = found  # the most recently used one last
    if len(_compiled) > _KEPT:
        del _compiled[next(iter(_compiled))]
    return found


def forget(program: Compiled) -> None:
    """Compiles a program anew when it is needed next."""
    for programs in (_compiled, _with_functions):
        for key in [key for key, kept in programs.items() if kept is program]:
            del programs[key]
