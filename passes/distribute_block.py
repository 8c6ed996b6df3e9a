"""The new form of a distributed scan: a loop over blocks, in each what comes before, the steps, the sums."""

from collections.abc import Iterable, Sequence

from stategrad.ir import Builder, Linear, Operation, Row, Value

from .distribute_analysis import Parts


class Block:
    """A scan that is taken apart into blocks of `size` steps."""

    def __init__(self, op: Operation, parts: Parts, size: int) -> None:
        self._op, self._parts, self._size = op, parts, size
        (self._body,) = op.regions
        self._carry = op.attributes["carry"]
        self._each_end = self._carry + op.attributes["each"]

    def emit_all(self, b: Builder) -> list[Value]:
        """Emits the loop over all blocks; gives the results of the scan."""
        op, size, length = self._op, self._size, self._op.attributes["length"]
        if size == length:
            return self._emit(b, op.operands)
        blocks = length // size
        each = [_reshaped(b, v, (blocks, size)) for v in op.operands[self._carry : self._each_end]]
        inner = Builder(b.location)
        params = [
            *(inner.param(v.type, v.name) for v in op.operands[: self._carry]),
            *(inner.param(v.type.with_shape(v.type.shape[1:]), v.name) for v in each),
            *(inner.param(v.type, v.name) for v in op.operands[self._each_end :]),
        ]
        for new, old in zip(params, self._body.params, strict=True):
            new.name = old.name
        region = inner.region(params, self._emit(inner, params))
        operands = [*op.operands[: self._carry], *each, *op.operands[self._each_end :]]
        attributes = {**op.attributes, "length": blocks}
        names = [v.name for v in op.results]
        found = b.emit(op.opdef, operands, attributes, [region], names)
        return [*found[: self._carry], *(_flattened(b, v) for v in found[self._carry :])]

    def _emit(self, b: Builder, operands: Sequence[Value]) -> list[Value]:
        """One block of steps; gives the carried values after it, and its stacks."""
        parts, body, k = self._parts, self._body, self._carry
        whole = _Whole(b, self._size, [*parts.before, *parts.after])
        for i, (p, v) in enumerate(zip(body.params, operands, strict=True)):
            if i >= k:
                whole.bind(p, v, stacked=i < self._each_end)
        loop = [i for i in range(k) if i not in parts.sums]
        stacks = [v for v in body.results[k:] if whole.lacks(v)]
        leaving = [v for v in parts.leaving if v not in stacks]
        found = self._steps(whole, operands, loop, [*dict.fromkeys(stacks), *leaving])
        for v, stack in zip([*dict.fromkeys(stacks), *leaving], found[len(loop) :], strict=True):
            whole.bind(v, stack, stacked=True)
        carried = dict(zip(loop, found, strict=False))
        for i, s in parts.sums.items():
            b.location = s.adds[0].location
            total = operands[i]
            for term in s.terms:
                total = b.add(total, whole.summed(term))
            carried[i] = total
        return [*(carried[i] for i in range(k)), *(whole.stack(v) for v in body.results[k:])]

    def _steps(
        self, whole: "_Whole", operands: Sequence[Value], loop: Sequence[int], stacked: Sequence[Value]
    ) -> tuple[Value, ...]:
        """The loop over the steps of one block."""
        parts, body = self._parts, self._body
        kept = [v for v in parts.entering.kept if whole.is_stacked(v)]
        fixed = [v for v in parts.entering.kept if not whole.is_stacked(v)]
        inner = Builder(body.location)
        inner.locals.extend(body.locals)
        old = [*(body.params[i] for i in loop), *kept, *fixed]
        params = [Value(v.type, v.name) for v in old]
        env = dict(zip(old, params, strict=True))
        for op in (*parts.entering.again, *parts.steps):
            env.update(zip(op.results, inner.copy(op, [env[v] for v in op.operands]), strict=True))
        results = [env[body.results[i]] for i in loop] + [env[v] for v in stacked]
        region = inner.region(params, results)
        given = [*(operands[i] for i in loop), *(whole.value(v) for v in (*kept, *fixed))]
        attributes = {**self._op.attributes, "carry": len(loop), "each": len(kept), "length": self._size}
        whole.b.location = self._op.location
        return whole.b.emit(
            self._op.opdef, given, attributes, [region], [v.name for v in (*old[: len(loop)], *stacked)]
        )


class _Whole:
    """The values of a whole block of steps at once, made where they are asked for."""

    def __init__(self, b: Builder, size: int, operations: Iterable[Operation]) -> None:
        self.b = b
        self._size = size
        self._operations = list(operations)
        self._makers = {v: op for op in self._operations for v in op.results}
        self._place = {op: i for i, op in enumerate(self._operations)}
        self._now: dict[Value, Value] = {}
        self._stacked: set[Value] = set()
        self._varies: dict[Value, bool] = {}
        self._sums: dict[Value, Value] = {}

    def bind(self, old: Value, new: Value, stacked: bool) -> None:
        """Says what a value is for the block: a stack of one a step, or the same in each."""
        self._now[old] = new
        if stacked:
            self._stacked.add(old)

    def lacks(self, v: Value) -> bool:
        """Whether only the steps can make a value."""
        return v not in self._now and v not in self._makers

    def is_stacked(self, v: Value) -> bool:
        """Whether the steps differ in a value."""
        if v not in self._varies:
            for op in self._missing(v):
                varies = any(x in self._stacked or self._varies.get(x, False) for x in op.operands)
                self._varies.update(dict.fromkeys(op.results, varies))
        return v in self._stacked or self._varies.get(v, False)

    def value(self, v: Value) -> Value:
        """The values of all steps in a stack, or the one that all steps share."""
        if v not in self._now:
            for op in self._missing(v):
                self._make(op)
        return self._now[v]

    def stack(self, v: Value) -> Value:
        """The values of all steps in a stack."""
        found = self.value(v)
        if v in self._stacked:
            return found
        dimensions = tuple(range(1, found.type.rank + 1))
        return self.b.broadcast(found, shape=(self._size, *found.type.shape), dimensions=dimensions)

    def _missing(self, v: Value) -> list[Operation]:
        needed: set[Operation] = set()
        waiting = [v]
        while waiting:
            op = self._makers.get(waiting.pop())
            if op is not None and op not in needed and op.results[0] not in self._now:
                needed.add(op)
                waiting += op.operands
        return sorted(needed, key=self._place.__getitem__)

    def _make(self, op: Operation) -> None:
        flags = [v in self._stacked for v in op.operands]
        operands = [self._now[v] for v in op.operands]
        self.b.location = op.location
        stacked = any(flags)
        batch = op.opdef.batch_of
        made = batch(self.b, op, operands, flags) if stacked else self.b.copy(op, operands)
        for old, new in zip(op.results, made, strict=True):
            new.name = new.name or old.name
            self.bind(old, new, stacked)

    def summed(self, v: Value) -> Value:
        """The sum of a value over the steps of the block."""
        found = self._sums.get(v)
        if found is None:
            found = self._sums[v] = self._sum(v)
            found.name = found.name or v.name
        return found

    def _sum(self, v: Value) -> Value:
        """Sums as early as possible: inside an operation that knows how, or before one that is linear."""
        op = None if v in self._now else self._makers.get(v)
        if op is None or not isinstance(op.opdef, Row):
            return self._plain_sum(v)
        varying = [self.is_stacked(x) for x in op.operands]
        self.b.location = op.location
        if op.opdef.summed is not None and all(varying):
            return op.opdef.summed(self.b, op, [self.value(x) for x in op.operands])
        if any(varying) and _commutes(op, varying):
            given = [
                self.summed(x) if f else self.value(x) for x, f in zip(op.operands, varying, strict=True)
            ]
            self.b.location = op.location
            return self.b.emit(op.opdef, given, op.attributes)[0]
        return self._plain_sum(v)

    def _plain_sum(self, v: Value) -> Value:
        found = self.value(v)
        if v in self._stacked:
            return self.b.reduce_sum(found, axes=(0,))
        return self.b.mul(found, self.b.constant(self._size, found.type))


def _commutes(op: Operation, varying: Sequence[bool]) -> bool:
    """Whether the sum of the operation is the operation of the sums."""
    rule = op.opdef.derivative if isinstance(op.opdef, Row) else None
    if not isinstance(rule, Linear) or len(op.results) != 1:
        return False
    given = [f for f, v in zip(varying, op.operands, strict=True) if v.type.differentiable]
    fixed = not any(f for f, v in zip(varying, op.operands, strict=True) if not v.type.differentiable)
    return fixed and (all(given) if rule.over == "all" else sum(given) == 1)


def _reshaped(b: Builder, v: Value, leading: tuple[int, ...]) -> Value:
    return b.reshape(v, shape=(*leading, *v.type.shape[1:]))


def _flattened(b: Builder, v: Value) -> Value:
    return b.reshape(v, shape=(v.type.shape[0] * v.type.shape[1], *v.type.shape[2:]))
