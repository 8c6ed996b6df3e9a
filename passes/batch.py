"""batch: a pure program on many inputs at once. What depends on a batched input has a leading axis."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stategrad.ir import (
    Builder,
    Function,
    IRError,
    Module,
    Operation,
    Region,
    StructuredOp,
    Type,
    Value,
    clone_region,
)

from .names import Fresh, function_named
from .pipeline import Pass, register_pass
from .spec import FunctionName
from .thread_state import thread_function

Flags = tuple[bool, ...]


def batch_function(
    function: Function,
    batched: Sequence[bool],
    size: int,
    names: Fresh | None = None,
    results: Sequence[bool] | None = None,
    axis: Hashable = None,
) -> Function:
    """The function on parameters of which the flagged ones carry a leading axis of that size; every result
    does, or those flagged in `results`, among which must be all that depend on a flagged parameter: see
    `BatchWalk`. Operations that work along the named `axis` work along this one.

    Raises:
        IRError: the function touches cells; thread-state comes first.
    """
    if len(batched) != len(function.params):
        raise IRError(f"@{function.name} has {len(function.params)} parameters, given {len(batched)} flags")
    if function.effects:
        cells = ", ".join(f"${c.name}" for c in function.effects)
        raise IRError(f"@{function.name} touches {cells}: run thread-state before batch")
    run = _Batcher(size, names or Fresh.beside(function), axis)
    pure = thread_function(function).function
    return run.function(pure, tuple(batched), tuple(results or (True,) * len(function.results)))


class BatchWalk:
    """Which results of a region carry the axis, for each pattern of parameters that do.

    Args:
        axis: the name of the axis, if it has one, and its length.
    """

    def __init__(self, axis: tuple[Hashable, int] = (None, 0)) -> None:
        self.axis = axis
        self._known: dict[tuple[Region, Flags], Flags] = {}
        self._along: dict[Region, bool] = {}

    def names_axis(self, op: Operation) -> bool:
        """Whether the operation, or one inside of it, works along the axis by its name."""
        return self.axis[0] is not None and (
            self.axis[0] in op.opdef.named_axes(op) or any(map(self._inside, regions_of(op)))
        )

    def _inside(self, region: Region) -> bool:
        found = self._along.get(region)
        if found is None:
            found = self._along[region] = any(map(self.names_axis, region.operations))
        return found

    def region(self, region: Region, batched: Flags) -> Flags:
        """Which results carry the axis if the flagged parameters do."""
        found = self._known.get((region, batched))
        if found is None:
            found = self._known[region, batched] = self._walk(region, batched)
        return found

    def _walk(self, region: Region, batched: Flags) -> Flags:
        wide = {v for v, flag in zip(region.params, batched, strict=True) if flag}
        for op in region.operations:
            along = self.names_axis(op)
            if wide.isdisjoint(op.operands) and not along:
                continue
            given = tuple(v in wide for v in op.operands)
            flags: Sequence[bool] = (True,) * len(op.results)
            if isinstance(op.opdef, StructuredOp):
                flags = op.opdef.batched_results(self, op, given)
            elif along:
                flags = op.opdef.carried_along(op, given, self.axis)
            wide.update(v for v, flag in zip(op.results, flags, strict=True) if flag)
        return tuple(v in wide for v in region.results)


class _Batcher:
    """One run: each function is batched once for each pattern."""

    def __init__(self, size: int, names: Fresh, axis: Hashable) -> None:
        self.size = size
        self.walk = BatchWalk((axis, size))
        self._names = names
        self._functions: dict[tuple[Function, Flags, Flags], Function] = {}

    def function(self, function: Function, batched: Flags, wanted: Flags) -> Function:
        """The function for this pattern of parameters and results that carry the axis."""
        key = function, batched, wanted
        found = self._functions.get(key)
        if found is None:
            body = BatchContext(self, function.body, batched).close(wanted)
            name = self._names.functions.fresh(f"{function.name}.batch")
            found = self._functions[key] = Function(name, body, {}, function.location)
        return found


class BatchContext:
    """One region being batched: what the rules of structured operations work with."""

    def __init__(self, run: _Batcher, region: Region, batched: Flags) -> None:
        self.walk = run.walk
        self._run = run
        self._region = region
        self._b = Builder()
        self._params = [self._param(v, flag) for v, flag in zip(region.params, batched, strict=True)]
        self._env = dict(zip(region.params, self._params, strict=True))
        self._wide = {v for v, flag in zip(region.params, batched, strict=True) if flag}
        for op in region.operations:
            self._step(op)

    def _param(self, value: Value, batched: bool) -> Value:
        return Value(value.type.batched(self._run.size) if batched else value.type, value.name)

    def _step(self, op: Operation) -> None:
        along = self.walk.names_axis(op)
        if not any(self.flags(op)) and not along:
            self.bind(op, self._b.copy(op, [self._env[v] for v in op.operands]), (False,) * len(op.results))
            return
        self._b.location = op.location
        if isinstance(op.opdef, StructuredOp):
            op.opdef.batch(self, op)
            return
        operands = [self._env[v] for v in op.operands]
        if along:
            self.bind(op, *op.opdef.batch_along(self._b, op, operands, self.flags(op), self.walk.axis))
        else:
            results = op.opdef.batch_of(self._b, op, operands, self.flags(op))
            self.bind(op, results, (True,) * len(op.results))

    def close(self, wanted: Flags) -> Region:
        """The finished region; the flagged results carry the axis."""
        results = [
            self.with_axis(v) if flag else self.value(v)
            for v, flag in zip(self._region.results, wanted, strict=True)
        ]
        self._b.location = self._region.location
        return self._b.region(self._params, results)

    # ------------------------------------------------------------------------------------------ for rules
    def flags(self, op: Operation) -> Flags:
        """Which operands carry the axis."""
        return tuple(v in self._wide for v in op.operands)

    def value(self, value: Value) -> Value:
        """What a value is now, with the axis or without."""
        return self._env[value]

    def with_axis(self, value: Value) -> Value:
        """What a value is now, repeated along the axis where it does not carry it."""
        now = self._env[value]
        if value in self._wide:
            return now
        dimensions = tuple(range(1, now.type.rank + 1))
        return self._b.broadcast(now, shape=(self._run.size, *now.type.shape), dimensions=dimensions)

    def swapped(self, value: Value) -> Value:
        """A new value with its first two axes exchanged."""
        return self._b.transpose(value, permutation=(1, 0, *range(2, value.type.rank)))

    def region(self, region: Region, batched: Flags, wanted: Flags) -> Region:
        """An inner region for this pattern of parameters and results."""
        return BatchContext(self._run, region, batched).close(wanted)

    def function(self, callee: Function, batched: Flags, wanted: Flags) -> Function:
        """A callee for this pattern of parameters and results."""
        return self._run.function(callee, batched, wanted)

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

    def inline(self, region: Region, args: Sequence[Value]) -> list[Value]:
        """Puts a region that is already batched here; gives its results."""
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


def regions_of(op: Operation) -> Iterator[Region]:
    """The regions inside of an operation, and the body of the function that it calls."""
    yield from op.regions
    callee = op.attributes.get("callee")
    if isinstance(callee, Function):
        yield callee.body


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


@register_pass
@dataclass(frozen=True)
class Batch(Pass):
    """Adds @f.batch: a pure function on arguments that carry a leading batch axis."""

    name = "batch"

    of: FunctionName
    size: int
    args: tuple[int, ...] | None = None
    """The arguments that carry the axis; by default all."""

    def run(self, module: Module) -> Module:
        function = function_named(module, self.of)
        flags = [self.args is None or i in self.args for i in range(len(function.params))]
        made = batch_function(function, flags, self.size, Fresh.in_module(module))
        return Module.of([*module.functions.values(), made], module.cells.values())
