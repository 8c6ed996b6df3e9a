"""Loop distribution: what a loop only adds up is computed for a block of steps at once.

A reversed loop of a gradient adds, step by step, the product of two small arrays to the gradient of a
weight. That product feeds nothing else in the loop. So the loop is cut into blocks of steps: the steps of a
block only stack what the products are made of, and one product over the whole block follows them. What does
not depend on carried values at all is computed for the whole block before its steps.
"""

from stategrad.ir import Function, Operation, Region
from stategrad.ir.record import record

from .distribute_analysis import Parts, divide
from .distribute_block import Block
from .pipeline import register_pass
from .rebuild import RewritePass, Rewriter, Scope

ROWS = 256
"""A block has so many steps that its products sum over about this many rows: more make them no faster."""

LEAST, MOST = 4, 64
"""The fewest and the most steps of a block."""


@register_pass
@record
class DistributeLoops(RewritePass):
    """Computes what a scan only adds up, and what no carried value enters, for blocks of steps at once.

    Sums are the same but for the order of their terms. Effects stay in the loop, in order.
    """

    name = "distribute-loops"

    block: int | None = None
    """How many steps a block has, if that divides the length; by default what makes products efficient."""

    def rewriter(self) -> Rewriter:
        return _Distribute(self.block)


def distribute_loops_function(function: Function, block: int | None = None) -> Function:
    """`function` and what it calls, loops distributed; the same object if there is nothing to distribute."""
    return _Distribute(block).function(function)


class _Distribute(Rewriter):
    def __init__(self, block: int | None) -> None:
        super().__init__()
        self._block = block

    def region(self, region: Region) -> Region:
        scope = Scope(region)
        for op in region.operations:
            new = self.renew(scope, op, [self.region(r) for r in op.regions])
            parts = divide(new) if new.name == "scan" else None
            length = self._length(new, parts) if parts is not None else None
            if parts is None or length is None:
                scope.append(new)
                continue
            scope.at(self.name, new.location)
            scope.replace(op.results, Block(new, parts, length).emit_all(scope))
        return scope.finish()

    name = DistributeLoops.name

    def _length(self, op: Operation, parts: Parts) -> int | None:
        """The number of steps of a block, a divisor of the length; None if none is good."""
        length = op.attributes["length"]
        if self._block is not None:
            return self._block if self._block > 1 and length % self._block == 0 else None
        wanted = min(max(ROWS // parts.rows, LEAST), MOST)
        divisors = [n for n in range(LEAST, 2 * wanted + 1) if length % n == 0]
        return min(divisors, key=lambda n: abs(n - wanted), default=None)
