"""From a traced function to a program that can be run: the passes, and what stands for what in it."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from stategrad.backend import Program
from stategrad.collecting import collector_paused
from stategrad.errors import GradientError
from stategrad.foreign import forget_rules_of_users
from stategrad.ir import DerivativeError, Function, Module
from stategrad.ir.record import record
from stategrad.passes import (
    CANONICALISE,
    SIMPLIFY,
    Hook,
    KeepResults,
    Pass,
    PassError,
    Pipeline,
    Residuals,
    Step,
    ThreadState,
    TripWire,
    loop_passes,
    thread_function,
)
from stategrad.trace import Leaf, Retyped, Traced

from .results import assembled


@record
class Derived:
    """What a transform makes of a traced function.

    Attributes:
        passes: they turn a module of the traced function into one whose last function is the one to run; that
            has the parameters of the traced function.
        build: makes what the user gets from all its results that are not leaves of retyped States.
        retyped_at: where among its results the leaves of retyped States begin.
        derivatives: what a person calls the results after those.
        reverse: whether they are derivatives in reverse.
        residuals: what may be kept for backward passes, as in the pass `residuals`; None leaves it open.
    """

    passes: tuple[Pass, ...]
    build: Callable[[list[Any]], Any]
    retyped_at: int
    derivatives: tuple[str, ...] = ()
    reverse: bool = False
    residuals: int | float | None = None


class Recipe(Protocol):
    """A transform: what to make of a traced function."""

    def derive(self, traced: Traced) -> Derived: ...


def derive(recipe: Recipe, traced: Traced, whole: bool = False) -> Derived:
    """What a recipe makes of a traced function; unless it is to be `whole`, without the results that the user
    does not get, such as the value for `grad`.
    """
    derived = recipe.derive(traced)
    count, first = traced.results + len(derived.derivatives), derived.retyped_at
    numbers, build = assembled(derived.build, count)
    if len(numbers) == count:
        return dataclasses.replace(derived, build=build)
    if whole:
        return dataclasses.replace(derived, build=lambda results: build([results[i] for i in numbers]))
    retyped = sum(len(r.held.types) for r in traced.retyped)
    before, after = ([i for i in numbers if (i < first) is side] for side in (True, False))
    kept = (*before, *range(first, first + retyped), *(i + retyped for i in after))
    return dataclasses.replace(
        derived,
        passes=(*derived.passes, KeepResults(kept)),
        build=build,
        retyped_at=len(before),
        derivatives=tuple(derived.derivatives[i - traced.results] for i in numbers if i >= traced.results),
    )


@record
class Staged:
    """A program with its bindings. Its operands are the values of `inputs`, `captured`, and the argument
    leaves; its results those of the entry function, and then the new values of `outputs`.
    """

    program: Program
    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]
    captured: tuple[Any, ...]
    retyped: tuple[Retyped, ...]
    retyped_at: int
    build: Callable[[list[Any]], Any]
    module: Module

    def split(self, results: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The results of the entry function, and the new values of `outputs`."""
        written = len(results) - len(self.outputs)
        return list(results[:written]), list(results[written:])

    def deliver(self, results: list[Any], commit: Callable[[Retyped, list[Any]], None]) -> Any:
        """What the user gets; the new leaves of each retyped State go to `commit`."""
        return self.build(without_retyped(results, self.retyped, self.retyped_at, commit))


def without_retyped(
    results: list[Any],
    retyped: Sequence[Retyped],
    first: int,
    commit: Callable[[Retyped, list[Any]], None],
) -> list[Any]:
    """The results of a function without the leaves of retyped States, which begin at `first` and go to
    `commit`.
    """
    end = first
    for each in retyped:
        start, end = end, end + len(each.held.types)
        commit(each, results[start:end])
    return [*results[:first], *results[end:]] if retyped else results


def module_of(traced: Traced) -> Module:
    """The traced function with all that it calls and every cell that stands for a State."""
    return Module.of([traced.function], traced.leaves)


@collector_paused()
def stage(traced: Traced, derived: Derived, hook: Hook | None = None, wired: bool = False) -> Staged:
    """Runs the passes; `hook` sees the module before the first and after each. `wired`: the program has one
    more result, which says whether all the others are finite.

    Raises:
        GradientError: something on the way has no derivative.
    """
    before = module_of(traced)
    try:
        return _run_passes(traced, before, derived, _Count(hook), wired)
    except PassError as e:
        if isinstance(e.__cause__, DerivativeError):  # the user's mistake, not the pass's
            raise GradientError(str(e.__cause__)) from e.__cause__
        raise
    finally:
        forget_rules_of_users()


def _run_passes(traced: Traced, before: Module, derived: Derived, count: "_Count", wired: bool) -> Staged:
    effectful = (CANONICALISE + Pipeline(derived.passes)).run(before, count.hook)
    start = time.perf_counter()
    threaded = thread_function(_last(effectful))
    pure = Module.of([threaded.function])
    count.add(Step(1, ThreadState(), pure, time.perf_counter() - start))
    last = Pipeline((TripWire(),)) + SIMPLIFY if wired else SIMPLIFY
    budget = derived.residuals
    chosen = Pipeline() if budget is None else Pipeline.of(Residuals(budget)) + SIMPLIFY
    simple = count.then(last + chosen, pure)
    kept = budget and 1.0  # the choice is made: what there is now is kept, all of it
    if count.hook is not None:
        count.then(loop_passes(simple, kept), simple)  # a program goes through them when it is lowered
    entry = _last(simple)
    inputs, outputs = (
        tuple(traced.leaves[c] for c in cells) for cells in (threaded.inputs, threaded.outputs)
    )
    return Staged(
        Program(entry, kept),
        inputs,
        outputs,
        traced.captured,
        traced.retyped,
        derived.retyped_at,
        derived.build,
        before,
    )


def _last(module: Module) -> Function:
    return list(module.functions.values())[-1]


class _Count:
    """Numbers the steps of several pipelines in a row as one."""

    def __init__(self, hook: Hook | None) -> None:
        self._user = hook
        self._done = 0
        self._seen = 0
        self.hook: Hook | None = None if hook is None else self._step

    def _step(self, step: Step) -> None:
        if self._user is not None and (step.index or not self._done):
            self._seen = self._done + step.index
            self._user(dataclasses.replace(step, index=self._seen))

    def add(self, step: Step) -> None:
        self._done = self._seen
        self._step(step)
        self._done = self._seen

    def then(self, pipeline: Pipeline, module: Module) -> Module:
        found = pipeline.run(module, self.hook)
        self._done = self._seen
        return found
