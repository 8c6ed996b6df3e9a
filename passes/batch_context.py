"""One region being batched: the context of the rules of batch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stategrad.ir import (
    Builder,
    Cell,
    Effect,
    Function,
    Operation,
    Region,
    StructuredOp,
    Type,
    Value,
    clone_region,
)

from .batch_walk import Cells, Flags
from .thread_state import ThreadContext

if TYPE_CHECKING:
    from .batch import Batcher


class BatchContext:
    """One region being batched: what the rules of structured operations work with.

    What a cell holds stands in the cell itself where it is the same for all elements, and in its batched cell
    where it carries the axis. The other of the two then holds what nobody looks at.
    """

    def __init__(self, run: "Batcher", region: Region, batched: Flags, cells: Cells) -> None:
        self.walk = run.walk
        self._run = run
        self._region = region
        self._b = Builder()
        self._params = [self._param(v, flag) for v, flag in zip(region.params, batched, strict=True)]
        self._env = dict(zip(region.params, self._params, strict=True))
        self._wide = {v for v, flag in zip(region.params, batched, strict=True) if flag}
        self._cells = set(cells)
        for op in region.operations:
            self._step(op)

    def _param(self, value: Value, batched: bool) -> Value:
        return Value(value.type.batched(self._run.size) if batched else value.type, value.name)

    def _step(self, op: Operation) -> None:
        flags, along = self.flags(op), self.walk.names_axis(op)
        if not any(flags) and not self.cells(op) and not along:
            self.bind(op, self._b.copy(op, [self._env[v] for v in op.operands]), (False,) * len(op.results))
            return
        self._b.location = op.location
        if isinstance(op.opdef, StructuredOp):
            op.opdef.batch(self, op)
        elif op.effects:
            self._effect(op)
        elif along:
            operands = [self._env[v] for v in op.operands]
            self.bind(op, *op.opdef.batch_along(self._b, op, operands, flags, self.walk.axis))
        else:
            operands = [self._env[v] for v in op.operands]
            results = op.opdef.batch_of(self._b, op, operands, flags)
            self.bind(op, results, (True,) * len(op.results))

    def close(self, wanted: Flags, exit: Cells) -> Region:
        """The finished region; the flagged results and the cells in `exit` carry the axis at its end."""
        self._b.location = self._region.location
        self.spread(sorted(exit, key=lambda c: c.name))
        results = [
            self.with_axis(v) if flag else self.value(v)
            for v, flag in zip(self._region.results, wanted, strict=True)
        ]
        own = self._region.locals
        self._b.locals = [*own, *(self._run.cells[c] for c in own if c in self._run.cells)]
        return self._b.region(self._params, results)

    # -------------------------------------------------------------------------------------------- effects
    def _effect(self, op: Operation) -> None:
        ((cell, effect),) = op.effects.items()
        if effect == Effect.WRITE:
            self._store(cell, op.operands[0])
        elif effect == Effect.ACCUMULATE:
            self.spread([cell])
            self._b.accumulate(self.with_axis(op.operands[0]), cell=self._run.cell(cell))
        elif effect == Effect.READ:
            self.bind(op, [self._held(cell)], (True,))
        else:
            self.bind(op, [self._b.take(cell=self._run.cell(cell))], (True,))
            self._b.write(self._b.filler(cell.type), cell=cell)
            self._cells.discard(cell)

    def _held(self, cell: Cell) -> Value:
        return self._b.read(cell=self._run.cell(cell) if cell in self._cells else cell)

    def _store(self, cell: Cell, value: Value) -> None:
        if value in self._wide:
            self._b.write(self._env[value], cell=self._run.cell(cell))
            self._cells.add(cell)
        else:
            self._b.write(self._env[value], cell=cell)
            self._cells.discard(cell)

    # ------------------------------------------------------------------------------------------ for rules
    def flags(self, op: Operation) -> Flags:
        """Which operands carry the axis."""
        return tuple(v in self._wide for v in op.operands)

    def cells(self, op: Operation) -> Cells:
        """Which of the cells that the operation touches carry the axis now."""
        return frozenset(c for c in op.effects if c in self._cells)

    def spread(self, cells: Iterable[Cell]) -> None:
        """From here on these cells carry the axis: what they hold is repeated where they do not."""
        for cell in cells:
            if cell not in self._cells:
                self._b.write(self._repeated(self._b.read(cell=cell)), cell=self._run.cell(cell))
                self._cells.add(cell)

    def enter(self, op: Operation, cells: Cells) -> None:
        """The same for cells that the operation touches, in the order in which it does."""
        self.spread(c for c in op.effects if c in cells)

    def leave(self, op: Operation, exit: Cells) -> None:
        """Says which of the cells that the operation touches carry the axis after it."""
        self._cells.difference_update(op.effects)
        self._cells.update(exit)

    def value(self, value: Value) -> Value:
        """What a value is now, with the axis or without."""
        return self._env[value]

    def with_axis(self, value: Value) -> Value:
        """What a value is now, repeated along the axis where it does not carry it."""
        now = self._env[value]
        return now if value in self._wide else self._repeated(now)

    def _repeated(self, now: Value) -> Value:
        dimensions = tuple(range(1, now.type.rank + 1))
        return self._b.broadcast(now, shape=(self._run.size, *now.type.shape), dimensions=dimensions)

    def swapped(self, value: Value) -> Value:
        """A new value with its first two axes exchanged."""
        return self._b.transpose(value, permutation=(1, 0, *range(2, value.type.rank)))

    def region(self, region: Region, batched: Flags, wanted: Flags, cells: Cells, exit: Cells) -> Region:
        """An inner region for this pattern of parameters and results, and of cells at its entry and end."""
        return BatchContext(self._run, region, batched, cells).close(wanted, exit)

    def function(
        self, callee: Function, batched: Flags, wanted: Flags, cells: Cells, exit: Cells
    ) -> Function:
        """A callee for this pattern of parameters, results and cells."""
        return self._run.function(callee, batched, wanted, cells, exit)

    def emit(
        self,
        op: Operation,
        operands: Sequence[Value],
        attributes: Mapping[str, Any],
        regions: Sequence[Region] = (),
    ) -> tuple[Value, ...]:
        """Emits the operation in its own place."""
        return self._b.emit(op.opdef, operands, attributes, regions, (), op.location)

    def bind(self, op: Operation, values: Sequence[Value], flags: Sequence[bool]) -> None:
        """Says what the results of an operation are now, and which carry the axis."""
        for old, new, flag in zip(op.results, values, flags, strict=True):
            new.name = new.name or old.name
            self._env[old] = new
            if flag:
                self._wide.add(old)

    # --------------------------------------------------------------------- where control differs in the batch
    def pure(self, op: Operation) -> bool:
        """Whether nothing inside a structured operation touches a cell."""
        return isinstance(op.opdef, StructuredOp) and all(map(self._run.threader.pure, op.opdef.bodies(op)))

    def threaded(self, op: Operation) -> None:
        """Batches the pure twin of an operation, between reads and writes of the cells that it touches: some
        elements have effects that others do not have, and only values can be selected.
        """
        inner, touched = ThreadContext(self._run.threader), list(op.effects)
        entry = [Value(c.type, c.name) for c in touched]
        operands = [Value(v.type, v.name) for v in op.operands]
        inner.hold(touched, entry)
        results = inner.inline(_alone(op), operands)
        changed = [c for c, e in op.effects.items() if e.changes]
        after = inner.now(changed)

        self._wide.update(v for v, c in zip(entry, touched, strict=True) if c in self._cells)
        self._wide.update(v for v, old in zip(operands, op.operands, strict=True) if old in self._wide)
        self._env.update(zip(entry, map(self._held, touched), strict=True))
        self._env.update(zip(operands, [self._env[v] for v in op.operands], strict=True))
        for made in inner.b.operations:
            self._step(made)
        self._b.location = op.location
        self.bind(op, [self._env[v] for v in results], tuple(v in self._wide for v in results))
        for cell, value in zip(changed, after, strict=True):
            self._store(cell, value)

    def inline(self, region: Region, args: Sequence[Value]) -> list[Value]:
        """Puts a pure region that is already batched here; gives its results."""
        return _inline(self._b, region, args)

    def choose(self, op: Operation, index: Value, found: Sequence[Sequence[Value]]) -> list[Value]:
        """For each element of the batch the results of the branch that its index names, as `cond` counts
        them.
        """
        b, chosen = self._b, list(found[0])
        for i, branch in enumerate(found[1:], 1):
            take = index
            if index.type.dtype.kind != "b":
                take = b.ge(index, b.constant(i, index.type))
            chosen = [_select(b, take, new, old) for new, old in zip(branch, chosen, strict=True)]
        return chosen

    def masked(self, op: Operation, test: Region, step: Region, carry: int) -> tuple[Region, Region]:
        """The regions of a loop that goes on while any element does, and changes only those that do.

        The step takes carry, then what the test and what the step close over.
        """
        any_left = Builder(op.location)
        params = [Value(v.type, v.name) for v in test.params]
        (going,) = _inline(any_left, test, params)
        condition = any_left.region(params, [any_left.reduce_or(going, axes=(0,))])

        b = Builder(op.location)
        renewed = clone_region(test)
        old = [Value(v.type, v.name) for v in step.params[:carry]]
        asked = [Value(v.type, v.name) for v in test.params[carry:]]
        used = [Value(v.type, v.name) for v in step.params[carry:]]
        (mask,) = _inline(b, renewed, [*old, *asked])
        new = _inline(b, step, [*old, *used])
        kept = [_select(b, mask, x, y) for x, y in zip(new, old, strict=True)]
        return condition, b.region([*old, *asked, *used], kept)


def _alone(op: Operation) -> Region:
    """A region of one operation, to be read only: the regions inside are still those of `op`."""
    params = tuple(Value(v.type, v.name) for v in op.operands)
    results = tuple(Value(r.type, r.name) for r in op.results)
    made = Operation(op.opdef, params, results, op.attributes, op.regions, op.location)
    return Region(params, (made,), results, (), op.location)


def _select(b: Builder, mask: Value, on_true: Value, on_false: Value) -> Value:
    """`select` on a mask of the leading axis."""
    type: Type = on_true.type.with_dtype(mask.type.dtype)
    if mask.type != type:
        mask = b.broadcast(mask, shape=type.shape, dimensions=(0,))
    return b.select(mask, on_true, on_false)


def _inline(b: Builder, region: Region, args: Sequence[Value]) -> list[Value]:
    """Puts the operations of a pure region here; gives its results."""
    env = dict(zip(region.params, args, strict=True))
    for op in region.operations:
        env.update(zip(op.results, b.copy(op, [env[v] for v in op.operands]), strict=True))
    return [env[v] for v in region.results]
