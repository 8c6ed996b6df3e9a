"""Common subexpressions: what was computed before is not computed again."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stategrad.ir import Cell, DType, Effect, Function, Operation, Region, Type, Value
from stategrad.ir.record import record

from .pipeline import register_pass
from .ports import ports
from .rebuild import RewritePass, Rewriter, Scope
from .splat import BARRIER

Key = tuple[object, ...]
_PLAIN = frozenset((int, str, bool, type(None), Type, DType))


@register_pass
@record
class Cse(RewritePass):
    """Merges equal pure operations, and reads of a cell between which it does not change.

    Every region is a scope of its own. Barriers and operations that reach outside are never merged.
    """

    name = "cse"

    def rewriter(self) -> Rewriter:
        return _Cse()


def cse_function(function: Function) -> Function:
    """`function` and what it calls with equal operations merged; the same object if there are none."""
    return _Cse().function(function)


class _Cse(Rewriter):
    def __init__(self) -> None:
        super().__init__()
        self._keys = AttributeKeys()

    def region(self, region: Region) -> Region:
        return self._region(region, {})

    def _region(self, region: Region, equal: Mapping[Value, Value]) -> Region:
        """Rebuilds a region in which some parameters are known to `equal` others."""
        scope = Scope(region)
        scope.env.update(equal)
        seen: dict[Key, Operation] = {}
        versions: dict[Cell, int] = {}
        for op in region.operations:
            regions = [self._region(r, e) for r, e in _inner(scope, op)] if op.regions else ()
            new = scope.moved(op) if op.opdef.pure else self.renew(scope, op, regions)
            first = self._first(new, seen, versions)
            if first is new:
                scope.append(new)
            else:
                scope.replace(op.results, first.results)
            if new.effects:
                for cell, effect in new.effects.items():
                    if effect.changes:
                        versions[cell] = versions.get(cell, 0) + 1
        return scope.finish()

    def _first(self, op: Operation, seen: dict[Key, Operation], versions: Mapping[Cell, int]) -> Operation:
        """The first operation that is equal to this one: itself if there is none before it."""
        if op.external or op.regions or op.opdef.name == BARRIER:
            return op
        key: Key = (op.opdef, op.operands)
        if op.effects:
            if any(effect != Effect.READ for effect in op.effects.values()):
                return op
            key = (*key, *((cell, versions.get(cell, 0)) for cell in op.effects))
        before = seen.setdefault(key, op)
        if before is op:  # few operations share their operands: the attributes of the others do not matter
            return op
        attributes, others = self._keys.of(op.attributes), self._keys.of(before.attributes)
        if others is not None:
            seen.setdefault((key, others), before)
        return op if attributes is None else seen.setdefault((key, attributes), op)


def _inner(scope: Scope, op: Operation) -> list[tuple[Region, dict[Value, Value]]]:
    """The regions of `op`, each with its parameters that hold the same operand as an earlier parameter."""
    if not op.regions:
        return []
    found = ports(op)
    if found is None:
        return [(region, {}) for region in op.regions]
    operands = scope.values(op.operands)
    inner: list[tuple[Region, dict[Value, Value]]] = []
    for region, slots in zip(op.regions, found.params, strict=False):
        first: dict[tuple[Value, bool], Value] = {}
        equal: dict[Value, Value] = {}
        for param, slot in zip(region.params, slots, strict=True):
            if slot >= found.carried:
                kept = first.setdefault((operands[slot], found.whole(slot)), param)
                equal.update({param: kept} if kept is not param else {})
        inner.append((region, equal))
    return inner


class AttributeKeys:
    """Hashables that are equal for equal attributes. Many operations share one mapping: each is looked at
    once.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Mapping[str, Any], Key | None]] = {}

    def of(self, attributes: Mapping[str, Any]) -> Key | None:
        """A key for the attributes of an operation, None if there is none."""
        if not attributes:
            return ()
        found = self._known.get(id(attributes))
        if found is None:  # the mapping is held, so that its id stays its own
            found = self._known[id(attributes)] = attributes, _attributes_key(attributes)
        return found[1]


def _attributes_key(attributes: Mapping[str, Any]) -> Key | None:
    found = tuple([(name, value_key(attributes[name])) for name in sorted(attributes)])
    return None if any(key is None for _, key in found) else found


def value_key(value: Any) -> Key | None:
    """A hashable that is equal for equal attribute values only: -0.0 is not 0.0, a NaN is its bits."""
    of = type(value)
    if of in _PLAIN:
        return (of, value)
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            return None
        return ("array", value.dtype, value.shape, value.tobytes())
    if isinstance(value, (float, complex)):
        return (type(value), np.array(value).tobytes())
    if isinstance(value, (tuple, list)):
        parts = tuple(map(value_key, value))
        return None if None in parts else (type(value), parts)
    try:
        hash(value)
    except TypeError:
        return ("object", id(value))  # an array of JAX's, which the operation keeps alive
    return (type(value), value)
