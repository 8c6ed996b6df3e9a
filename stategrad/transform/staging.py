"""From a traced function to a program that can be run: the passes, and what stands for what in it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stategrad.backend import Program
from stategrad.ir import Function, Module
from stategrad.passes import CANONICALISE, SIMPLIFY, Hook, Pass, Pipeline, ThreadState
from stategrad.trace import Leaf, Retyped, Traced


@dataclass(frozen=True)
class Derived:
    """What a transform makes of a traced function.

    Attributes:
        passes: they turn a module of the traced function into one that contains `entry`.
        entry: the name of the function to run; its parameters are those of the traced function.
        build: makes what the user gets from all results of `entry` that are not leaves of retyped States.
        retyped_at: where among the results of `entry` the leaves of retyped States begin.
    """

    passes: tuple[Pass, ...]
    entry: str
    build: Callable[[list[Any]], Any]
    retyped_at: int


class Recipe(Protocol):
    """A transform: what to make of a traced function."""

    def derive(self, traced: Traced) -> Derived: ...


@dataclass(frozen=True)
class Staged:
    """A program with its bindings. Its operands are the values of `inputs`, `captured`, and the argument leaves; its
    results those of the entry function, and then the new values of `outputs`.
    """

    program: Program
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    captured: tuple[Any, ...]
    retyped: tuple[Retyped, ...]
    retyped_at: int
    build: Callable[[list[Any]], Any]
    module: Module

    def split(self, results: Sequence[Any]) -> tuple[Any, list[Any], list[Any]]:
        """What the user gets, the new leaves of retyped States, the new values of `outputs`."""
        written = len(results) - len(self.outputs)
        retyped = self.retyped_at + sum(len(r.held.types) for r in self.retyped)
        rest = [*results[: self.retyped_at], *results[retyped:written]]
        return self.build(rest), list(results[self.retyped_at : retyped]), list(results[written:])


def module_of(traced: Traced) -> Module:
    """The traced function with all that it calls and every cell that stands for a State."""
    return Module.of([traced.function], traced.leaves)


def pipeline_of(derived: Derived) -> Pipeline:
    """All passes from the traced function to the pure program."""
    return CANONICALISE + Pipeline(derived.passes) + Pipeline((ThreadState(),)) + SIMPLIFY


def stage(traced: Traced, recipe: Recipe, hook: Hook | None = None) -> Staged:
    """Runs the passes; `hook` sees the module after each."""
    derived = recipe.derive(traced)
    before = module_of(traced)
    after = pipeline_of(derived).run(before, hook)
    entry = after.functions[derived.entry]
    inputs, outputs = threaded_cells(entry, traced)
    gone = {id(r.state) for r in traced.retyped}
    if any(id(leaf.state) in gone for leaf in outputs):
        raise NotImplementedError
    return Staged(
        Program(entry),
        inputs,
        outputs,
        traced.captured,
        traced.retyped,
        derived.retyped_at,
        derived.build,
        before,
    )


def threaded_cells(entry: Function, traced: Traced) -> tuple[tuple[Leaf, ...], tuple[Leaf, ...]]:
    """The State leaves that a threaded function takes first and gives last."""
    by_name = {cell.name: leaf for cell, leaf in traced.leaves.items()}
    return tuple(by_name[n] for n in entry.attributes["inputs"]), tuple(
        by_name[n] for n in entry.attributes["outputs"]
    )
