"""Locations of operations as MLIR keeps them: the user's line, and the passes in between."""

from typing import Any

from jaxlib.mlir import ir

from stategrad import jax_compat
from stategrad.ir import Derived, Location, Operation, Source


class Locations:
    """Makes MLIR locations for one lowering rule.

    An operation becomes `jit(f)/transpose(linearize)/attention/mul` at the user's line: the name, with the
    user's `jax.named_scope` in it, shows in profiles, the line in the metadata of the compiled program. What
    the surrounding JAX program is called stands in front.
    """

    def __init__(self, ctx: Any) -> None:
        self._ctx = ctx
        self._prefix = jax_compat.name_prefix(ctx)
        self._files: dict[Source, Any] = {}
        self._unknown = ir.Location.unknown()

    def __call__(self, op: Operation) -> Any:
        by = derivation(op.location)
        path = "/".join(part for part in (by, scope(op.location), op.name) if part)
        name = f"{self._prefix}{path}"
        return ir.Location.name(f"{op.name}:", ir.Location.name(name, self._line(op.location.source)))

    def _line(self, source: Location) -> Any:
        if not isinstance(source, Source):
            return self._unknown
        found = self._files.get(source)
        if found is None:
            file = jax_compat.canonical_file(self._ctx, source.file)
            found = self._files[source] = ir.Location.file(file, source.line, source.column)
        return found


def derivation(location: Location) -> str:
    """The passes that an operation came through, the last outermost: `transpose(linearize)`, or nothing."""
    if not isinstance(location, Derived):
        return ""
    inner = derivation(location.base)
    return f"{location.by}({inner})" if inner else location.by


def scope(location: Location) -> str:
    """The `jax.named_scope`s of the user's around the operation that this one comes from."""
    while isinstance(location, Derived):
        location = location.base
    return getattr(location, "scope", "")
