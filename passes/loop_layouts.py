"""Layouts in loops: what a product takes from outside its loop is turned once, not in each step."""

from stategrad.ir import Function, Operation, Region, Value
from stategrad.ir.record import record

from .pipeline import register_pass
from .ports import with_consts
from .rebuild import RewritePass, Rewriter, Scope, with_body, with_parts

_PRODUCT = "dot"


@register_pass
@record
class LoopLayouts(RewritePass):
    """Transposes a matrix that every step of a scan multiplies by before the scan, where products like it so.

    A product runs at its best over the last axis of its left operand and the first of its right one;
    gradients ask for the weights the other way round.
    """

    name = "loop-layouts"

    def rewriter(self) -> Rewriter:
        return _LoopLayouts()


def loop_layouts_function(function: Function) -> Function:
    """`function` and what it calls, matrices turned before their loops; the same object if none are."""
    return _LoopLayouts().function(function)


class _LoopLayouts(Rewriter):
    def region(self, region: Region) -> Region:
        scope = Scope(region)
        for op in region.operations:
            new = self.renew(scope, op, [self.region(r) for r in op.regions])
            scope.append(_turned(scope, new) if new.name == "scan" else new)
        return scope.finish()


def _turned(scope: Scope, op: Operation) -> Operation:
    """The scan with the matrices that its products take transposed among its const operands."""
    (body,) = op.regions
    first = op.attributes["carry"] + op.attributes["each"]
    outside = dict(zip(body.params[first:], op.operands[first:], strict=True))
    inside: dict[Value, Value] = {}
    operations = [_product(o, outside, inside) if o.name == _PRODUCT else o for o in body.operations]
    if not inside:
        return op
    scope.at("loop-layouts", op.location)
    extra = [scope.transpose(outside[v], permutation=(1, 0)) for v in inside]
    region = with_body(body, operations, params=(*body.params, *inside.values()))
    return with_consts(op, op.operands, [region], [extra])


def _product(op: Operation, outside: dict[Value, Value], inside: dict[Value, Value]) -> Operation:
    """The product on transposed matrices, which get parameters in `inside`; itself if it is well as it is."""
    contract, batch = op.attributes["contract"], op.attributes["batch"]
    if any(map(len, batch)) or [len(axes) for axes in contract] != [1, 1]:
        return op
    operands, axes = list(op.operands), [axes[0] for axes in contract]
    for side, good in enumerate((1, 0)):
        v = operands[side]
        if v in outside and v.type.rank == 2 and axes[side] != good:
            turned = v.type.with_shape(v.type.shape[::-1])
            operands[side] = inside.setdefault(v, Value(turned, v.name))
            axes[side] = good
    attributes = {**op.attributes, "contract": ((axes[0],), (axes[1],))}
    return op if operands == list(op.operands) else with_parts(op, operands, attributes=attributes)
