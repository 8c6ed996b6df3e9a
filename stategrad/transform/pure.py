"""The effect-free twin of a traced function, and the programs that are made from it by differentiation.

States are operands and results here. `thread` and `differentiate` commute, so it makes no difference to the
result that threading comes first; and a final State is a result like any other.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from stategrad.backend import Program
from stategrad.errors import GradientError
from stategrad.ir import Cell, DerivativeError, Function, Region, Value
from stategrad.ir.record import record
from stategrad.passes import (
    canonicalise_function,
    gradient_function,
    jvp_function,
    linearize_function,
    simplify_function,
    thread_function,
)
from stategrad.trace import Traced


@record
class Halves:
    """A program in two halves.

    Attributes:
        forward: gives the results of the program, among them what `linear` needs.
        linear: takes residuals and then the tangents of the active operands; gives those of `results`.
        residuals: the operands of `linear`, by number in the operands of `forward` and then its results.
        results: the results of the program that depend on what is active.
    """

    forward: Program
    linear: Program
    residuals: tuple[int, ...]
    results: tuple[int, ...]


@record
class Pure:
    """The effect-free twin of a traced function.

    Its operands are the values of `inputs` on entry, what the function captured, and the argument leaves; its
    results what the function returned, the leaves of retyped States, and what `outputs` hold at the end.
    Programs made from it have the same operands and then tangents; their results are the same ones, then the
    derivatives, and then those of `outputs` that are `changed`.

    Attributes:
        inputs, outputs: numbers of the cells of the traced function.
        changed: for each of `outputs`, whether the function may have changed it.
    """

    function: Function
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    changed: tuple[bool, ...]
    _made: dict[Any, Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def of(traced: Traced, keep: Sequence[Cell]) -> "Pure":
        """The twin; what `keep` hold at the end are results, changed or not."""
        number = {cell: i for i, cell in enumerate(traced.leaves)}
        function = canonicalise_function(traced.function)
        threaded = thread_function(function, keep)
        effects = function.effects
        return Pure(
            simplify_function(threaded.function),
            tuple(number[c] for c in threaded.inputs),
            tuple(number[c] for c in threaded.outputs),
            tuple(c in effects and effects[c].changes for c in threaded.outputs),
        )

    @property
    def own(self) -> int:
        """How many results are not those of `outputs`."""
        return len(self.function.results) - len(self.outputs)

    def tangents(self, active: tuple[int, ...], results: tuple[int, ...]) -> Program:
        """The function together with the tangents of `results`, given those of the `active` operands."""

        def make() -> Program:
            made = jvp_function(self.function, active, results=results)
            first = len(self.function.results)
            return self._program(made, made.results[first : first + len(results)])

        return self._derive(("jvp", active, results), make)

    def curvature(self, rows: tuple[int, ...], active: tuple[int, ...]) -> Program:
        """The function together with the tangents of its gradient by `rows`: forward over reverse."""

        def make() -> Program:
            first = len(self.function.results)
            gradient = _pure(gradient_function(self.function, rows, results=(0,), unit=True))
            results = range(first, first + len(rows))
            made = jvp_function(gradient, active, results=results)
            first += len(rows)
            return self._program(made, made.results[first : first + len(rows)])

        return self._derive(("hvp", rows, active), make)

    def halves(self, active: tuple[int, ...], results: tuple[int, ...], *, transposable: bool) -> Halves:
        """The two halves, for the tangents of `results` only.

        Args:
            transposable: where no residuals can be saved, as in an unbounded loop, it is an error; otherwise
                the linear half computes everything again.
        """

        def make() -> Halves:
            flags = [i in active for i in range(len(self.function.params))]
            try:
                made = linearize_function(self.function, flags, results=results)
            except DerivativeError:
                if transposable:
                    raise
                return self._unsaved(active, results)
            forwarded = (made.fwd.params[i] for i in made.forwarded if isinstance(i, int))
            sources = [*(made.fwd.results[i] for i in made.saved), *forwarded]
            tangents = dict(zip(made.results, made.lin.results, strict=True))
            return self._halved(
                made.fwd, made.lin, sources, {i: tangents[i] for i in results if i in tangents}
            )

        return self._derive(("linearize", active, results, transposable), make)

    # ------------------------------------------------------------------------------------------------ making
    def _derive(self, key: Any, make: Any) -> Any:
        found = self._made.get(key)
        if found is None:
            with explained(self.function.name):
                found = self._made[key] = make()
        return found

    def _program(self, made: Function, extra: Sequence[Value]) -> Program:
        """A program whose first results are those of the function, with `extra` in its place."""
        return Program(_pure(_with_results(made, [*made.results[: self.own], *extra, *self._changed(made)])))

    def _changed(self, made: Function) -> list[Value]:
        """The results that are the new values of `outputs`, where these may have changed."""
        after = made.results[self.own : len(self.function.results)]
        return [v for v, changed in zip(after, self.changed, strict=True) if changed]

    def _unsaved(self, active: tuple[int, ...], results: tuple[int, ...]) -> Halves:
        made = jvp_function(self.function, active, results=results)
        tangents = made.results[len(self.function.results) :]
        found = dict(zip(results, tangents, strict=True))
        return self._halved(self.function, made, self.function.params, found)

    def _halved(
        self, forward: Function, linear: Function, sources: Sequence[Value], tangents: dict[int, Value]
    ) -> Halves:
        """Leaves out the tangents that nobody wants, and then the residuals that nobody needs."""
        known = len(sources)
        lin = _pure(_with_results(linear, list(tangents.values())))
        used = {v for op in lin.body.operations for v in op.operands}.union(lin.results)
        needed = [i for i, v in enumerate(lin.params[:known]) if v in used]
        params = [*(lin.params[i] for i in needed), *lin.params[known:]]
        body = Region(
            tuple(params), lin.body.operations, lin.body.results, lin.body.locals, lin.body.location
        )
        lin = Function(lin.name, body, {"known": len(needed)}, lin.location)
        saved = list(dict.fromkeys(sources[i] for i in needed))
        own, tail = forward.results[: self.own], self._changed(forward)
        extra = [v for v in saved if v not in {*forward.params, *own, *tail}]
        place: dict[Value, int] = {}
        for i, v in enumerate([*forward.params, *own, *extra, *tail]):
            place.setdefault(v, i)
        return Halves(
            self._program(forward, extra),
            Program(lin),
            tuple(place[sources[i]] for i in needed),
            tuple(tangents),
        )


def _pure(made: Function) -> Function:
    """What a pass made, without the local cells that it used."""
    return simplify_function(thread_function(made).function)


def _with_results(function: Function, results: Sequence[Value]) -> Function:
    body = function.body
    body = Region(body.params, body.operations, tuple(results), body.locals, body.location)
    return Function(function.name, body, function.attributes, function.location)


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Inside, a derivative that does not exist is the user's `GradientError`."""
    try:
        yield
    except DerivativeError as error:
        raise GradientError(f"{name} has no such derivative: {error}") from error
