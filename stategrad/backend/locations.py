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
        self._places: dict[int, tuple[Location, dict[Any, Any]]] = {}
        self._by_line: dict[tuple[str, Location], dict[Any, Any]] = {}
        self._files: dict[Source, Any] = {}
        self._unknown = ir.Location.unknown()

    def __call__(self, op: Operation) -> Any:
        key: Any = op.opdef
        base = op.location
        while type(base) is Derived:
            key = key, base.by
            base = base.base
        # Operations of one line, derived alike, share a location: it takes long to find out what to call it.
        _, made = self._places.get(id(base)) or self._place(base)
        found = made.get(key)
        if found is None:
            found = made[key] = self._make(op.opdef.name, op.location)
        return found

    def _place(self, base: Location) -> tuple[Location, dict[Any, Any]]:
        """What has been made for a line, by operation and passes. `base` is held: its id stays its own."""
        made = self._by_line.setdefault((getattr(base, "scope", ""), base.source), {})
        found = self._places[id(base)] = base, made
        return found

    def _make(self, name: str, location: Location) -> Any:
        path = "/".join(part for part in (derivation(location), scope(location), name) if part)
        line = self._line(location.source)
        return ir.Location.name(f"{name}:", ir.Location.name(f"{self._prefix}{path}", line))

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
