"""Makes a failing program smaller: operations go, one after another and many at a time, as long as it still
fails.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from stategrad.ir import Builder, Function, Operation, Region, walk
from stategrad.passes import dce_function, inline_function

from .random_programs import Program

Fails = Callable[[Program], bool]


def shrink(program: Program, fails: Fails, attempts: int = 2000) -> Program:
    """A smaller program that `fails`, too; `attempts` bounds how many are tried."""
    left = attempts
    progress = True
    while progress and left > 0:
        progress = False
        for candidate in _smaller(program):
            left -= 1
            if left <= 0:
                break
            if fails(candidate):
                program, progress = candidate, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    yield from _fewer_questions(program)
    inlined = inline_function(program.main, size=1_000_000)
    if inlined is not program.main:
        yield replace(program, main=inlined)
    operations = [op for op in walk(program.main.body) if op.name != "constant"]
    size = len(operations) // 2
    while size >= 1:
        for start in reversed(range(0, len(operations), size)):
            made = _without(program.main.body, set(operations[start : start + size]))
            yield replace(program, main=dce_function(Function(program.main.name, made)))
        size //= 2


def _fewer_questions(program: Program) -> Iterator[Program]:
    for part in ("args", "wrt", "final"):
        asked = getattr(program, part)
        for i in range(len(asked)):
            yield replace(program, **{part: asked[:i] + asked[i + 1 :]})


def _without(region: Region, gone: set[Operation]) -> Region:
    """The region with constants in the place of the results of some operations."""
    b = Builder()
    b.locals.extend(region.locals)
    for op in region.operations:
        if op not in gone:
            inner = tuple(_without(r, gone) for r in op.regions)
            b.append(Operation(op.opdef, op.operands, op.results, op.attributes, inner, op.location))
            continue
        for old in op.results:
            b.constant(0.5 if old.type.differentiable else 1, old.type)
            made = b.operations.pop()
            b.append(Operation(made.opdef, (), (old,), made.attributes))
    return b.region(region.params, region.results)
