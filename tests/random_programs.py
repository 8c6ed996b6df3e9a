"""Random effectful programs, each from a seed: few cells, loops, recent values, so that mistakes about state
show.

A generator that is not biased like this misses, for instance, a loop that reads a cell again which it
changes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from stategrad.ir import Builder, Cell, Function, Region, Type, Value, dtype, lookup

I32, BOOL = Type.parse("i32[]"), Type.parse("bool[]")


@dataclass(frozen=True)
class Program:
    """A function `main`, the cells that it may touch, and what to differentiate by."""

    seed: int
    main: Function
    cells: tuple[Cell, ...]
    args: tuple[int, ...]
    wrt: tuple[Cell, ...]
    final: tuple[Cell, ...]

    @property
    def real_cells(self) -> tuple[Cell, ...]:
        return tuple(c for c in self.cells if c.type.differentiable)


@dataclass(frozen=True)
class Shape:
    """How a program is drawn: how deep it nests, how long it is, which structured operations it has."""

    depth: int = 2
    length: tuple[int, int] = (5, 12)
    inner: tuple[int, int] = (2, 6)
    structured: tuple[str, ...] = ("scan", "cond", "call", "remat")
    loopy: bool = False


SHAPES = (
    Shape(),
    Shape(length=(8, 16), inner=(2, 9), loopy=True),
    Shape(length=(8, 14), inner=(2, 9), loopy=True, structured=("scan", "scan", "call")),
    Shape(depth=3, length=(3, 6), inner=(2, 5), loopy=True),
    Shape(length=(8, 14), inner=(3, 6), structured=("call", "call", "call", "cond", "scan")),
)


def random_program(seed: int, float_type: str = "f64", unbounded: bool = False) -> Program:
    """The program of that seed; an `unbounded` one has `while` loops too, so it has no gradient."""
    return _Generator(seed, float_type, unbounded).program()


def random_inputs(types: Sequence[Type], seed: int) -> list[np.ndarray]:
    """Arrays of these types."""
    rng = np.random.default_rng(seed)

    def draw(type: Type) -> np.ndarray:
        if type.dtype.kind == "f":
            return (rng.standard_normal(type.shape) * 0.7).astype(type.dtype.numpy)
        return rng.integers(0, 3, type.shape).astype(type.dtype.numpy)

    return [draw(t) for t in types]


class _Block:
    """A region being written: its builder and the values there are so far, oldest first."""

    def __init__(self, params: Sequence[Value]) -> None:
        self.b = Builder()
        self.params = list(params)
        self.values = list(params)


class _Generator:
    def __init__(self, seed: int, float_type: str, unbounded: bool) -> None:
        self.seed = seed
        self.r = random.Random(seed)
        self.shape = SHAPES[self.r.randrange(len(SHAPES))]
        if unbounded:
            kinds = (*self.shape.structured, "while", "while", "while")
            self.shape = replace(self.shape, structured=kinds)
        of = dtype(float_type)
        self.S, self.V, self.M = Type(of), Type(of, (3,)), Type(of, (3, 3))
        self.cells = {
            name: Cell(name, type)
            for name, type in (("a", self.V), ("b", self.V), ("s", self.S), ("w", self.M), ("n", I32))
        }
        self.functions: list[Function] = []
        self.scratch: list[Cell] = []

    def program(self) -> Program:
        if "call" in self.shape.structured:
            for i in range(self.r.randint(0, 2)):
                self.functions.append(
                    self.function(f"g{i}", self.shape.depth - 1, self.r.randint(*self.shape.inner))
                )
        main = self.function("main", self.shape.depth, self.r.randint(*self.shape.length))
        real = [c for c in self.cells.values() if c.type.differentiable]
        p = 0.3 if self.shape.loopy else 0.6
        wrt = tuple(c for c in real if self.r.random() < p)
        final = tuple(c for c in real if self.r.random() < p)
        args = tuple(i for i in range(3) if i == 0 or self.r.random() < 0.7)
        return Program(self.seed, main, tuple(self.cells.values()), args, wrt, final)

    def function(self, name: str, depth: int, length: int) -> Function:
        block = _Block([Value(t, n) for t, n in ((self.S, "x"), (self.V, "y"), (self.M, "z"))])
        self.fill(block, depth, length)
        types = self.r.choices([self.S, self.V, self.M], k=self.r.randint(1, 3))
        results = [self.tame(block, self.pick(block, t)) for t in types]
        return block.b.function(name, block.params, results)

    # ------------------------------------------------------------------------------------------------ values
    def pick(self, block: _Block, type: Type) -> Value:
        """A value of that type, often a recent one."""
        have = [v for v in block.values if v.type == type]
        if self.shape.loopy and self.r.random() < 0.7:
            have = have[-2:]
        return self.r.choice(have)

    def tame(self, block: _Block, value: Value) -> Value:
        """The value squeezed, so that loops do not blow up."""
        return getattr(block.b, self.r.choice(["tanh", "sin"]))(value)

    def fill(self, block: _Block, depth: int, length: int) -> None:
        for _ in range(length):
            getattr(self, f"make_{self.kind(depth)}")(block, depth)

    def kind(self, depth: int) -> str:
        r, structured = self.r, list(self.shape.structured) if depth else []
        if self.shape.loopy and structured and r.random() < 0.25:
            return "scan"
        if self.shape.loopy and r.random() < 0.5:
            return r.choice(
                ["read", "read", "read", "write", "write", "accumulate", "take", "binary", "binary"]
            )
        plain = ["read", "read", "write", "write", "accumulate", "accumulate", "take", "binary", "binary"]
        more = ["unary", "product", "sum", "spread", "choose", "count"]
        return r.choice([*plain, *more, *structured, *structured])

    def cell(self) -> Cell:
        if self.scratch and self.r.random() < 0.3:
            return self.scratch[-1]
        return self.cells[self.r.choice("aabs" if self.shape.loopy else "aabbsw")]

    # ------------------------------------------------------------------------------------------------ effects
    def make_read(self, block: _Block, depth: int) -> None:
        block.values.append(block.b.read(cell=self.cell()))

    def make_take(self, block: _Block, depth: int) -> None:
        block.values.append(block.b.take(cell=self.cell()))

    def make_write(self, block: _Block, depth: int) -> None:
        self.store(block, block.b.write)

    def make_accumulate(self, block: _Block, depth: int) -> None:
        self.store(block, block.b.accumulate)

    def store(self, block: _Block, effect) -> None:
        cell = self.cell()
        recent = [v for v in block.values[-4:] if v.type == cell.type]
        if self.r.random() < 0.15:
            value = block.b.constant(0.3, cell.type)
        elif self.shape.loopy and recent:
            value = self.r.choice(recent)
        else:
            value = self.pick(block, cell.type)
        effect(self.tame(block, value), cell=cell)

    def make_count(self, block: _Block, depth: int) -> None:
        n, b = self.cells["n"], block.b
        b.write(b.add(b.read(cell=n), b.constant(1, I32)), cell=n)

    # ------------------------------------------------------------------------------------------------ rows
    def make_binary(self, block: _Block, depth: int) -> None:
        type = self.r.choice([self.S, self.V, self.V, self.M])
        row = getattr(block.b, self.r.choice(["mul", "add"]))
        block.values.append(row(self.pick(block, type), self.pick(block, type)))

    def make_unary(self, block: _Block, depth: int) -> None:
        row = getattr(block.b, self.r.choice(["sin", "tanh", "neg"]))
        block.values.append(row(self.pick(block, self.r.choice([self.S, self.V, self.M]))))

    def make_product(self, block: _Block, depth: int) -> None:
        b = block.b
        product = b.dot(
            self.pick(block, self.M),
            self.pick(block, self.V),
            contract=((1,), (0,)),
            batch=((), ()),
            precision=("default", "default"),
            to=self.V.dtype,
        )
        block.values.append(b.tanh(product))

    def make_sum(self, block: _Block, depth: int) -> None:
        block.values.append(block.b.sin(block.b.reduce_sum(self.pick(block, self.V), axes=(0,))))

    def make_spread(self, block: _Block, depth: int) -> None:
        block.values.append(block.b.broadcast(self.pick(block, self.S), shape=(3,), dimensions=()))

    def make_choose(self, block: _Block, depth: int) -> None:
        b, x, y = block.b, self.pick(block, self.V), self.pick(block, self.V)
        block.values.append(b.select(b.lt(x, y), y, b.neg(x)))

    # ----------------------------------------------------------------------------------------- structured
    def inner(self, params: Sequence[Value], depth: int, types: Sequence[Type]) -> Region:
        """A region of random content with results of these types, some of the time with a cell of its own."""
        block, own = _Block(params), self.r.random() < 0.2
        if own:
            self.scratch.append(Cell("scratch", self.V))
            block.b.locals.append(self.scratch[-1])
            if self.r.random() < 0.7:
                block.b.accumulate(self.tame(block, self.pick(block, self.V)), cell=self.scratch[-1])
        self.fill(block, depth - 1, self.r.randint(*self.shape.inner))
        if own:
            cell = self.scratch.pop()
            block.values.append(block.b.read(cell=cell) if self.r.random() < 0.7 else block.b.take(cell=cell))
        return block.b.region(block.params, [self.tame(block, self.pick(block, t)) for t in types])

    def make_scan(self, block: _Block, depth: int) -> None:
        r, real = self.r, [self.S, self.V, self.M]
        length = r.choice([0, 1, 2, 3, 3]) if r.random() < 0.5 else r.choice([2, 3])
        carry, each = r.choices(real, k=r.randint(0, 2)), r.choices([self.S, self.V], k=r.randint(0, 2))
        stacked = r.choices([self.S, self.V], k=r.randint(0, 2))
        operands = [self.pick(block, t) for t in carry]
        operands += [self.stacked(block, t, length) for t in each]
        operands += [self.pick(block, t) for t in real]
        params = [Value(t, n) for t, n in zip(carry, "cd", strict=False)]
        params += [Value(t, n) for t, n in zip(each, "ef", strict=False)]
        params += [Value(t, "k") for t in real]
        body = self.inner(params, depth, [*carry, *stacked])
        attributes = {
            "carry": len(carry),
            "each": len(each),
            "length": length,
            "reverse": r.random() < 0.3,
        }
        block.values += block.b.emit(lookup("scan"), operands, attributes, [body])

    def stacked(self, block: _Block, type: Type, length: int) -> Value:
        """A stack to loop over: one that there is, or a new one."""
        have = [v for v in block.values if v.type == type.batched(length)]
        if have and self.r.random() < 0.6:
            return self.r.choice(have)
        inner = _Block([Value(type, "c")])
        body = inner.b.region(inner.params, [inner.b.sin(inner.params[0]), inner.params[0]])
        attributes = {"carry": 1, "each": 0, "length": length, "reverse": False}
        return block.b.emit(lookup("scan"), [self.pick(block, type)], attributes, [body])[1]

    def some_operands(self, block: _Block) -> list[Value]:
        return [self.pick(block, t) for t in (self.S, self.V, self.V, self.M)]

    def make_cond(self, block: _Block, depth: int) -> None:
        b, r = block.b, self.r
        branches, operands = 2, self.some_operands(block)
        if r.random() < 0.5:
            index = b.lt(b.read(cell=self.cells["n"]), b.constant(r.randint(0, 4), I32))
        elif r.random() < 0.6:
            index = b.lt(self.pick(block, self.S), b.constant(0.1, self.S))
        else:
            index, branches = b.read(cell=self.cells["n"]), 3
        types = r.choices([self.S, self.V, self.M], k=r.randint(0, 2))
        regions = [self.inner([Value(v.type, "p") for v in operands], depth, types) for _ in range(branches)]
        block.values += b.emit(lookup("cond"), [index, *operands], {}, regions)

    def make_remat(self, block: _Block, depth: int) -> None:
        operands = self.some_operands(block)
        types = self.r.choices([self.S, self.V, self.M], k=self.r.randint(1, 2))
        body = self.inner([Value(v.type, "p") for v in operands], depth, types)
        block.values += block.b.emit(lookup("remat"), operands, {}, [body])

    def make_call(self, block: _Block, depth: int) -> None:
        if self.functions:
            callee = self.r.choice(self.functions)
            operands = [self.pick(block, v.type) for v in callee.params]
            block.values += block.b.emit(lookup("call"), operands, {"callee": callee})

    def make_while(self, block: _Block, depth: int) -> None:
        """A loop of few steps; now and then its condition changes a cell."""
        r, carry = self.r, self.r.choices([self.S, self.V, self.M], k=self.r.randint(0, 2))
        start = block.b.read(cell=self.cells["n"]) if r.random() < 0.5 else block.b.constant(0, I32)
        operands = [start, *(self.pick(block, t) for t in carry)]
        operands += [*(self.pick(block, t) for t in (self.S, self.V, self.M)), *self.some_operands(block)]
        first = 1 + len(carry)
        test = _Block([Value(v.type, "t") for v in operands[: first + 3]])
        if r.random() < 0.3:
            self.store(test, test.b.write)
        going = test.b.lt(test.params[0], test.b.constant(r.randint(0, 3), I32))
        condition = test.b.region(test.params, [going])

        params = [Value(v.type, "u") for v in (*operands[:first], *operands[first + 3 :])]
        inside = self.inner(params, depth, carry)
        step = Builder()
        step.locals, step.operations = list(inside.locals), list(inside.operations)
        count = step.add(params[0], step.constant(1, I32))
        body = step.region(params, [count, *inside.results])
        attributes = {"carry": first, "cond_const": 3}
        block.values += block.b.emit(lookup("while"), operands, attributes, [condition, body])[1:]
