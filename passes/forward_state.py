"""State forwarding: reads see the values written before them, and writes that nobody sees are dropped.

Two walks over a region. Forwards, with the value that each cell is known to hold; then backwards, with the
cells that are overwritten before anyone looks.
"""

from collections.abc import Callable

from stategrad.ir import Cell, Effect, Function, Operation, Region, Type, Value
from stategrad.ir.record import record

from .pipeline import register_pass
from .ports import ports
from .rebuild import RewritePass, Rewriter, Scope, with_body, with_parts
from .splat import is_zero

_LOOKS = Effect.READ | Effect.TAKE
_BY = "forward-state"


@register_pass
@record
class ForwardState(RewritePass):
    """Forwards written values to later reads, drops dead writes: left are reads at entry, writes at exit.

    Where the value of a cell is known, `accumulate` becomes a sum and a write, `take` a write of zero.
    """

    name = "forward-state"

    def rewriter(self) -> Rewriter:
        return _ForwardState()


def forward_state_function(function: Function) -> Function:
    """`function` and its callees, reads forwarded and dead writes dropped; the same object if none are."""
    return _ForwardState().function(function)


class _ForwardState(Rewriter):
    def region(self, region: Region) -> Region:
        return _without_dead_writes(self._forwarded(region), frozenset(region.locals))

    def _forwarded(self, region: Region) -> Region:
        walk = _Forward(region)
        for op in region.operations:
            if op.opdef.pure:
                walk.row(walk.scope.moved(op))
                continue
            regions = [self._forwarded(r) for r in op.regions] if op.regions else ()
            walk.step(self.renew(walk.scope, op, regions), op)
        return walk.scope.finish()


class _Forward:
    """One forward walk. `held` is what cells are known to hold; local cells start as zero."""

    def __init__(self, region: Region) -> None:
        self.scope = Scope(region)
        self._held: dict[Cell, Value] = {}
        self._zero = set(region.locals)
        self._zeros: dict[Type, Value] = {}
        self._rules: dict[str, Callable[[Operation, Cell], None]] = {
            "read": self._read,
            "write": self._write,
            "accumulate": self._accumulate,
            "take": self._take,
        }

    def row(self, op: Operation) -> None:
        """Takes in the next operation, one without effects or regions."""
        self.scope.append(op)
        if is_zero(op):
            self._zeros[op.result.type] = op.result

    def step(self, op: Operation, old: Operation) -> None:
        """Takes in the next operation; `old` is what it was before its operands were renewed."""
        rule = self._rules.get(op.name)
        if rule is not None:
            self.scope.at(_BY, op.location)
            rule(op, op.attributes["cell"])
            return
        self.scope.append(op)
        for cell, effect in op.effects.items():
            if effect.changes:
                self._forget(cell)

    def _forget(self, cell: Cell) -> None:
        self._held.pop(cell, None)
        self._zero.discard(cell)

    def _hold(self, cell: Cell, value: Value) -> None:
        self._forget(cell)
        self._held[cell] = value
        if self._zeros.get(cell.type) is value:
            self._zero.add(cell)

    def _zero_of(self, type: Type) -> Value:
        found = self._zeros.get(type)
        if found is None:
            found = self._zeros[type] = self.scope.zeros(type)
        return found

    def _known(self, cell: Cell) -> Value | None:
        """What the cell holds. The zero of a local cell is made when first asked for; keys have none."""
        if cell not in self._held and cell in self._zero and cell.type.dtype.numpy is not None:
            self._held[cell] = self._zero_of(cell.type)
        return self._held.get(cell)

    def _read(self, op: Operation, cell: Cell) -> None:
        known = self._known(cell)
        if known is None:
            self.scope.append(op)
            self._held[cell] = op.result
        else:
            self.scope.replace(op.results, (known,))

    def _write(self, op: Operation, cell: Cell) -> None:
        (value,) = op.operands
        if self._held.get(cell) is not value:
            self.scope.append(op)
            self._hold(cell, value)

    def _accumulate(self, op: Operation, cell: Cell) -> None:
        (value,) = op.operands
        if cell in self._zero:
            self.scope.write(value, cell=cell)
            self._hold(cell, value)
        elif cell in self._held and cell.type.dtype.kind in "iufc":
            total = self.scope.add(self._held[cell], value)
            self.scope.write(total, cell=cell)
            self._hold(cell, total)
        else:
            self.scope.append(op)
            self._forget(cell)

    def _take(self, op: Operation, cell: Cell) -> None:
        known = self._known(cell)
        if known is None:
            self.scope.append(op)
            self._forget(cell)
            self._zero.add(cell)
            return
        self.scope.replace(op.results, (known,))
        if cell not in self._zero:
            zero = self._zero_of(cell.type)
            self.scope.write(zero, cell=cell)
            self._hold(cell, zero)


# ------------------------------------------------------------------------------------------------ dead writes
def _without_dead_writes(region: Region, dead: frozenset[Cell]) -> Region:
    """`region` without the changes of cells that are overwritten, or gone, before anyone looks at them.

    `dead` are the cells of which nobody needs what they hold at the end.
    """
    walk = _Backward(region, dead)
    kept = [new for new in map(walk.step, reversed(region.operations)) if new is not None]
    return with_body(region, kept[::-1])


class _Backward:
    """One backward walk: the cells that are overwritten before anyone looks, and the values that are used."""

    def __init__(self, region: Region, dead: frozenset[Cell]) -> None:
        self._unseen = set(dead)
        self._used = set(region.results)

    def step(self, op: Operation) -> Operation | None:
        """What becomes of the operation before those already walked; None if nothing needs it."""
        if op.opdef.pure:
            self._used.update(op.operands)
            return op
        cell = op.attributes.get("cell")
        new = self._inside(op) if cell is None else self._effect(op, cell)
        if new is not None:
            self._used.update(new.operands)
        return new

    def _effect(self, op: Operation, cell: Cell) -> Operation | None:
        effect = op.effects[cell]
        looks = effect & _LOOKS and op.result in self._used
        if not looks and (effect == Effect.READ or cell in self._unseen):
            return None
        if effect == Effect.TAKE and cell in self._unseen:
            self._unseen.discard(cell)
            return _read_instead(op, cell)
        if looks or effect == Effect.ACCUMULATE:
            self._unseen.discard(cell)
        else:
            self._unseen.add(cell)
        return op

    def _inside(self, op: Operation) -> Operation:
        if not op.regions:
            self._unseen.difference_update(op.effects)
            return op
        found = ports(op)
        repeats = found is None or found.repeats
        looked_at = {c for c, e in op.effects.items() if e & _LOOKS} if repeats else frozenset[Cell]()
        dead = frozenset(self._unseen - looked_at)
        new = with_parts(op, regions=[_without_dead_writes(r, dead | set(r.locals)) for r in op.regions])
        self._unseen.difference_update(new.effects)
        return new


def _read_instead(op: Operation, cell: Cell) -> Operation:
    scope = Scope(Region((), (), ()))
    scope.at(_BY, op.location).read(cell=cell)
    (made,) = scope.operations
    return with_parts(made, results=op.results)
