"""Products of which only a part is used: that part of their operands is multiplied, not the whole.

The gradient by an array that was put together with others before a product is a slice of a product.
"""

from collections.abc import Iterable

from stategrad.ir import Builder, Function, Operation, Region, Value
from stategrad.ir.record import record

from .pipeline import register_pass
from .rebuild import RewritePass, Rewriter, Scope, with_parts
from .residuals_scan import Uses, uses_of

_PRODUCT, _SLICE = "dot", "slice"

Bounds = tuple[tuple[int, int], ...]
"""Where along each axis what is used of a value begins, and where it ends."""


@register_pass
@record
class NarrowProducts(RewritePass):
    """Slices the operands of a product of which only slices are used, as far as those reach."""

    name = "narrow-products"

    def rewriter(self) -> Rewriter:
        return _NarrowProducts()


def narrow_products_function(function: Function) -> Function:
    """`function` and what it calls, products narrowed; the same object if none can be."""
    return _NarrowProducts().function(function)


class _NarrowProducts(Rewriter):
    def region(self, region: Region) -> Region:
        narrowed = _narrowed(region)
        if region.straight and not narrowed:
            return region
        scope = Scope(region)
        moved: dict[Value, Bounds] = {}
        for op in region.operations:
            if not narrowed and op.opdef.pure:
                scope.append(op)
                continue
            new = self.renew(scope, op, [self.region(r) for r in op.regions])
            if op in narrowed:
                bounds = moved[op.result] = narrowed[op]
                scope.replace(op.results, [_product(scope.at("narrow-products", op.location), new, bounds)])
            elif new.name == _SLICE and op.operands[0] in moved:
                scope.append(_shifted(new, moved[op.operands[0]]))
            else:
                scope.append(new)
        return scope.finish()


def _narrowed(region: Region) -> dict[Operation, Bounds]:
    """The products of which less than the whole is used, with what is used."""
    makers: dict[Value, Operation] = {}
    sliced: list[Value] = []
    for op in region.operations:
        name = op.opdef.name
        if name == _PRODUCT:
            makers[op.result] = op
        elif name == _SLICE and op.operands[0] in makers:
            sliced.append(op.operands[0])
    uses: Uses = uses_of(region) if sliced else {}
    found: dict[Operation, Bounds] = {}
    for v in dict.fromkeys(sliced):
        bounds = _used(uses[v])
        if bounds is not None and bounds != tuple((0, n) for n in v.type.shape):
            found[makers[v]] = bounds
    return found


def _used(users: Iterable[Operation | None]) -> Bounds | None:
    """How far the slices of a value reach together; None if not all that use it are slices."""
    parts: list[Bounds] = []
    for user in users:
        if user is None or user.name != _SLICE:
            return None
        parts.append(tuple(zip(user.attributes["start"], user.attributes["limit"], strict=True)))
    if not parts:
        return None
    return tuple((min(a for a, _ in axis), max(z for _, z in axis)) for axis in zip(*parts, strict=True))


def _product(b: Builder, op: Operation, bounds: Bounds) -> Value:
    """The part of the product within the bounds."""
    operands, batch = op.operands, op.attributes["batch"]
    shared = len(batch[0])
    own = iter(bounds[shared:])
    parts: list[Value] = []
    for v, contracted, batched in zip(operands, op.attributes["contract"], batch, strict=True):
        within = {a: bounds[i] for i, a in enumerate(batched)}
        within |= {a: next(own) for a in range(v.type.rank) if a not in contracted and a not in batched}
        parts.append(_part(b, v, [within.get(a, (0, n)) for a, n in enumerate(v.type.shape)]))
    found = b.dot(*parts, **op.attributes)
    found.name = op.result.name
    return found


def _part(b: Builder, v: Value, bounds: Iterable[tuple[int, int]]) -> Value:
    start, limit = zip(*bounds, strict=True)
    if limit == v.type.shape and not any(start):
        return v
    return b.slice(v, start=start, limit=limit, strides=(1,) * v.type.rank)


def _shifted(op: Operation, bounds: Bounds) -> Operation:
    """The slice of what has been narrowed to these bounds."""
    lows = [low for low, _ in bounds]
    start, limit = (
        tuple(n - low for n, low in zip(op.attributes[key], lows, strict=True)) for key in ("start", "limit")
    )
    return with_parts(op, attributes={**op.attributes, "start": start, "limit": limit})
