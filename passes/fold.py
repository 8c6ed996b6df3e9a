"""Folding: constants are computed, identities applied, branches and loops of known course taken apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stategrad.ir import Function, Operation, Region, Row, Type, Value
from stategrad.ir.ops.common import batch as elementwise
from stategrad.ir.record import record

from .fold_regions import REGION_RULES, forward_results, settle_carries
from .identities import IDENTITIES, OF_CONSTANTS, Folding
from .pipeline import register_pass
from .ports import ports
from .rebuild import RewritePass, Rewriter
from .splat import BARRIER, CONSTANT, splat

_LARGEST = 256
"""So many elements may a constant have that is computed from."""
_SMALL = 16
"""So many elements may a computed constant have that is larger than what it is made of."""


@register_pass
@record
class Fold(RewritePass):
    """Computes small constants and applies identities that are exact but for the sign of a zero (x + 0 is x).

    Constants move into the regions that use them; a branch with a known predicate and a loop of at most one
    step are taken apart. A result that is not finite is never computed: it is left to the NaN checks.
    """

    name = "fold"

    def rewriter(self) -> Rewriter:
        return _Fold()


def fold_function(function: Function) -> Function:
    """`function` and what it calls, folded; the same object if there is nothing to fold."""
    return _Fold().function(function)


class _Fold(Rewriter):
    def region(self, region: Region) -> Region:
        return self._region(region, {})

    def _region(self, region: Region, constants: dict[int, Operation]) -> Region:
        """Rebuilds a region of which some parameters are known to hold constants."""
        scope = Folding(region)
        for i, made in constants.items():
            scope.at("fold", made.location)
            value = scope.emit(
                made.opdef, (), _as_type(made, region.params[i].type), names=[region.params[i].name]
            )
            scope.replace([region.params[i]], value)
        self._operations(scope, region)
        return scope.finish()

    def _operations(self, scope: Folding, region: Region) -> None:
        for op in region.operations:
            if op.opdef.pure:
                new = scope.moved(op)
                value = _folded(scope, new)
                scope.append(new) if value is None else scope.replace(op.results, value)
            elif not op.regions:
                scope.append(self.renew(scope, op))
            else:
                scope.at("fold", op.location)
                self._operation(scope, op)

    def _operation(self, scope: Folding, op: Operation) -> None:
        found = ports(op)
        if found is None:
            scope.append(self.renew(scope, op, [self.region(r) for r in op.regions]))
            return
        rule = REGION_RULES.get(op.name)
        taken = rule(scope, scope.moved(op)) if rule else None
        if taken is not None:
            self._take_apart(scope, op, *taken)
            return
        constants = [
            _constants(scope, op, r, slots) for r, slots in zip(op.regions, found.params, strict=True)
        ]
        regions = [self._region(r, known) for r, known in zip(op.regions, constants, strict=True)]
        new, settled = settle_carries(self.renew(scope, op, regions))
        known = {**settled, **forward_results(scope, new)}
        scope.append(new)
        scope.replace(known, known.values())

    def _take_apart(
        self, scope: Folding, op: Operation, region: Region, args: Sequence[Value], wrap: Any
    ) -> None:
        """Puts the body of a region that runs exactly once in the place of its operation."""
        scope.replace(region.params, args)
        scope.locals.extend(region.locals)
        scope.use(region)
        self._operations(scope, region)
        scope.at("fold", op.location)
        scope.replace(op.results, wrap(scope.values(region.results)))


def _constants(scope: Folding, op: Operation, region: Region, slots: Sequence[int]) -> dict[int, Operation]:
    """The parameters of a region that hold a constant at every step, and are used."""
    found = ports(op)
    used = _used(region)
    known: dict[int, Operation] = {}
    for i, slot in enumerate(slots):
        made = scope.made_by(op.operands[slot], CONSTANT)
        if made is None or found is None or slot < found.carried or region.params[i] not in used:
            continue
        if splat(made) is not None or (found.whole(slot) and made.result.type.size <= _SMALL):
            known[i] = made
    return known


def _used(region: Region) -> set[Value]:
    return {v for op in region.operations for v in op.operands}.union(region.results)


def _as_type(made: Operation, type: Type) -> dict[str, Any]:
    return {"value": made.attributes["value"], "type": type}


# ---------------------------------------------------------------------------------------- plain operations
def _folded(scope: Folding, op: Operation) -> Sequence[Value] | None:
    """The values that the results of a pure operation are known to be."""
    operands, constants, name = op.operands, scope.constants, op.opdef.name
    known = not constants.keys().isdisjoint(operands)
    for table in (OF_CONSTANTS, IDENTITIES) if known else (IDENTITIES,):
        rule = table.get(name)
        if rule is not None:
            scope.at("fold", op.location)
            found = rule(scope, op)
            if found is not None:
                return (found,)
    if not known or not constants.keys() >= {*operands} or name == BARRIER:
        return None
    return _computed(scope, op, [constants[v] for v in operands])


def _computed(scope: Folding, op: Operation, makers: Sequence[Operation]) -> Sequence[Value] | None:
    arrays = _computed_once(op, makers) or _computed_whole(op, makers)
    if arrays is None or not all(map(_finite, arrays)):
        return None
    scope.at("fold", op.location)
    return [scope.constant(_packed(a), r.type, r.name) for a, r in zip(arrays, op.results, strict=True)]


def _computed_once(op: Operation, makers: Sequence[Operation]) -> Sequence[Any] | None:
    """The one number that an elementwise operation makes of constants that are full of one number each."""
    numbers = list(map(splat, makers))
    is_elementwise = isinstance(op.opdef, Row) and op.opdef.batch is elementwise
    return _evaluated(op, numbers) if is_elementwise and all(n is not None for n in numbers) else None


def _computed_whole(op: Operation, makers: Sequence[Operation]) -> Sequence[Any] | None:
    types = [v.type for v in (*op.operands, *op.results)]
    if any(t.size > _LARGEST or t.dtype.numpy is None for t in types):
        return None
    arrays = _evaluated(op, [m.opdef.evaluate_op(None, m, ())[0] for m in makers])
    largest = max(_SMALL, *(v.type.size for v in op.operands))
    return arrays if all(a.size <= largest or _uniform(a) for a in arrays) else None


def _evaluated(op: Operation, args: Sequence[Any]) -> list[np.ndarray]:
    with np.errstate(all="ignore"):
        return [np.asarray(a) for a in op.opdef.evaluate_op(None, op, [np.asarray(a) for a in args])]


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind in "biu" or bool(np.all(np.isfinite(array.astype(_wide(array)))))


def _wide(array: np.ndarray) -> Any:
    return array.dtype if array.dtype.kind in "fc" else np.float64


def _uniform(array: np.ndarray) -> bool:
    return array.size > 0 and array.tobytes() == array.ravel()[:1].tobytes() * array.size


def _packed(array: np.ndarray) -> Any:
    return array.ravel()[0] if _uniform(array) else array
