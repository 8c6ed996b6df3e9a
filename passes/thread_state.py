"""thread-state: every effect on every cell becomes operands and results; what is left is pure."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stategrad.ir import Builder, Cell, Effect, Function, Module, Operation, Region, StructuredOp, Type, Value
from stategrad.ir.record import record

from .names import called_functions, cell_named, with_own_locals
from .pipeline import Pass, register_pass
from .rebuild import with_parts
from .spec import CellName


class Threaded(NamedTuple):
    """A pure function: its parameters are the values of `inputs` and then the old ones, its results the old
    ones and then the values of `outputs`.
    """

    function: Function
    inputs: tuple[Cell, ...]
    outputs: tuple[Cell, ...]


def thread_function(function: Function, keep: Iterable[Cell] = ()) -> Threaded:
    """The pure twin of a function. `inputs` are the cells whose value on entry matters; `outputs` the cells
    that may change, and those in `keep`, changed or not. A function that is pure already comes back as it is.
    """
    return Threader().function(function, tuple(keep))


class Threader:
    """One run of the pass: callees are threaded once.

    Args:
        only: the cells to thread; by default all. Effects on other cells stay.
        rename: the name of the twin of a function; by default the same one.
    """

    def __init__(self, only: Collection[Cell] | None = None, rename: Callable[[str], str] = str) -> None:
        self._only = only
        self._rename = rename
        # A twin that takes the place of its function may be made of the same values and operations.
        self.shares = only is None and rename is str
        self._functions: dict[tuple[Function, tuple[Cell, ...]], Threaded] = {}
        self._pure: dict[Region, bool] = {}

    def function(self, function: Function, keep: tuple[Cell, ...] = ()) -> Threaded:
        """The pure twin of a function, under the same name."""
        key = function, keep
        found = self._functions.get(key)
        if found is None:
            found = self._functions[key] = self._thread(function, keep)
        return found

    def pure(self, region: Region) -> bool:
        """Whether nothing in the region or below it touches a cell that is to be threaded."""
        found = self._pure.get(region)
        if found is None:
            inner = (r for op in region.operations for r in _bodies(op))
            found = not any(map(self.wants, (*region.effects, *region.locals))) and all(map(self.pure, inner))
            self._pure[region] = found
        return found

    def wants(self, cell: Cell) -> bool:
        """Whether the cell is to be threaded."""
        return self._only is None or cell in self._only

    def _thread(self, function: Function, keep: tuple[Cell, ...]) -> Threaded:
        if not keep and self.pure(function.body):
            return Threaded(function, (), ())
        body = function.body if self._only is None else with_own_locals(function.body)
        touched = tuple(filter(self.wants, dict.fromkeys((*body.effects, *keep))))
        outputs = tuple(c for c in touched if c in keep or body.effects[c].changes)
        inner = ThreadContext(self)
        entry = [inner.b.param(c.type, c.name) for c in touched]
        params = [v if self.shares else inner.b.param(v.type, v.name) for v in function.params]
        inner.hold(touched, entry)
        results = [*inner.inline(body, params), *inner.now(outputs)]
        used = {v for op in inner.b.operations for v in op.operands}.union(results)
        inputs = tuple(c for c, v in zip(touched, entry, strict=True) if v in used)
        inner.b.location = body.location
        region = inner.b.region([*(v for v in entry if v in used), *params], results)
        facts = {k: v for k, v in function.attributes.items() if k != "known" or not inputs}
        return Threaded(
            Function(self._rename(function.name), region, facts, function.location), inputs, outputs
        )


class ThreadContext:
    """The region being threaded: its builder, and what each cell holds at this point (None: zero)."""

    def __init__(self, run: Threader, params: Sequence[Value] = ()) -> None:
        self.run = run
        self.b = Builder()
        self.params = params
        self._env: dict[Value, Value] = {}
        self._now: dict[Cell, Value | None] = {}

    # ------------------------------------------------------------------------------------------ for rules
    def operands(self, op: Operation) -> list[Value]:
        """The new values of the operands."""
        env = self._env
        return [env.get(v, v) for v in op.operands]

    def changed(self, op: Operation) -> tuple[Cell, ...]:
        """The cells that the operation may change."""
        return tuple(c for c, e in op.effects.items() if e.changes and self.run.wants(c))

    def fixed(self, op: Operation) -> tuple[Cell, ...]:
        """The cells that the operation only reads."""
        return tuple(c for c, e in op.effects.items() if not e.changes and self.run.wants(c))

    def now(self, cells: Iterable[Cell]) -> list[Value]:
        """What the cells hold at this point."""
        return [self._held(c) for c in cells]

    def hold(self, cells: Sequence[Cell], values: Sequence[Value | None]) -> None:
        """Says what cells hold from here on."""
        self._now.update(zip(cells, values, strict=True))

    def bind(self, op: Operation, values: Sequence[Value]) -> None:
        """Says what the results of an operation are now."""
        for old, new in zip(op.results, values, strict=True):
            new.name = new.name or old.name
            self._env[old] = new

    def emit(
        self,
        op: Operation,
        operands: Sequence[Value],
        attributes: Mapping[str, Any],
        regions: Sequence[Region] = (),
        names: Sequence[str] = (),
    ) -> tuple[Value, ...]:
        """Emits the operation with more operands, in its place; `names` are those of its first results."""
        results = self.b.emit(op.opdef, operands, attributes, regions, location=op.location)
        for value, name in zip(results, names, strict=False):
            value.name = name
        return results

    def function(self, callee: Function) -> Threaded:
        """The pure twin of a callee."""
        return self.run.function(callee)

    def region(
        self,
        region: Region,
        leading: Sequence[Cell] = (),
        trailing: Sequence[Cell] = (),
        first: Sequence[Cell] = (),
        last: Sequence[Cell] = (),
    ) -> Region:
        """The region with cells before and after its parameters, and cells before and after its results."""
        wanted = [*(c.type for c in leading), *(v.type for v in region.params), *(c.type for c in trailing)]
        names = [*(c.name for c in leading), *(v.name for v in region.params), *(c.name for c in trailing)]
        inner = self.new_region(wanted, names)
        start, end = len(leading), len(wanted) - len(trailing)
        inner.hold([*leading, *trailing], [*inner.params[:start], *inner.params[end:]])
        results = inner.inline(region, inner.params[start:end])
        inner.b.location = region.location
        return inner.close([*inner.now(first), *results, *inner.now(last)])

    def new_region(self, types: Sequence[Type], names: Sequence[str] = ()) -> "ThreadContext":
        """A region with parameters of these types, to be filled and closed."""
        names = names or [""] * len(types)
        return ThreadContext(self.run, [Value(t, n) for t, n in zip(types, names, strict=True)])

    def close(self, results: Sequence[Value]) -> Region:
        """The finished region."""
        return self.b.region(self.params, results)

    def inline(self, region: Region, args: Sequence[Value]) -> list[Value]:
        """Threads the operations of a region into this place; gives its results."""
        self._env.update((p, v) for p, v in zip(region.params, args, strict=True) if p is not v)
        self._now.update(dict.fromkeys(filter(self.run.wants, region.locals)))
        self.b.locals.extend(c for c in region.locals if not self.run.wants(c))
        for op in region.operations:
            self._step(op)
        return [self._env.get(v, v) for v in region.results]

    # ------------------------------------------------------------------------------------------------ steps
    def _step(self, op: Operation) -> None:
        if op.opdef.pure:
            self._keep(op)
        elif isinstance(op.opdef, StructuredOp):
            if all(map(self.run.pure, op.opdef.bodies(op))):
                self._keep(op)
            else:
                self.b.location = op.location
                op.opdef.thread(self, op)
        elif any(map(self.run.wants, op.effects)):
            self._effect(op)
        else:
            self._keep(op)

    def _keep(self, op: Operation) -> None:
        """Puts an operation without effects here."""
        if not self.run.shares:
            self.bind(op, self.b.copy(op, self.operands(op)))
        elif self._env.keys().isdisjoint(op.operands):
            self.b.append(op)
        else:
            self.b.append(with_parts(op, self.operands(op)))

    def _effect(self, op: Operation) -> None:
        ((cell, effect),) = op.effects.items()
        self.b.location = op.location
        if effect == Effect.READ:
            self.bind(op, [self._held(cell)])
        elif effect == Effect.WRITE:
            (self._now[cell],) = self.operands(op)
        elif effect == Effect.ACCUMULATE:
            held, (more,) = self._now[cell], self.operands(op)
            self._now[cell] = more if held is None else self.b.add(held, more)
        else:
            self.bind(op, [self._held(cell)])
            self._now[cell] = None

    def _held(self, cell: Cell) -> Value:
        held = self._now[cell]
        if held is None:
            held = self._now[cell] = self.b.filler(cell.type)
        return held


def _bodies(op: Operation) -> Iterable[Region]:
    return op.opdef.bodies(op) if isinstance(op.opdef, StructuredOp) else ()


@register_pass
@record
class ThreadState(Pass):
    """Turns the effects on cells into operands and results: of every function, once for all cells."""

    name = "thread-state"

    keep: tuple[CellName, ...] = ()
    """Cells that the functions which no other calls return, whether they change them or not."""

    def run(self, module: Module) -> Module:
        keep = tuple(map(cell_named(module), self.keep))
        called = called_functions(module)
        run = Threader()
        made = {
            f.name: run.function(f, () if f in called else keep).function for f in module.functions.values()
        }
        if all(made[name] is f for name, f in module.functions.items()):
            return module
        return Module.of(made.values())
