"""`debug_nan` where a program runs at once: a flag over its results, and the error when it is down."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from stategrad import jax_compat as compat
from stategrad.backend import Program
from stategrad.errors import TraceError
from stategrad.ir.record import record
from stategrad.nonfinite import Trip, first_bad
from stategrad.passes import simplify_function, trip_wire_function
from stategrad.user_frame import user_line


def refuse_under_trace(name: str) -> None:
    """Raises if nothing can be raised from what runs now.

    Raises:
        TraceError: a function is being traced.
    """
    if not compat.is_eager():
        raise TraceError(
            f"{name} with debug_nan=True is called inside a function that is being traced{user_line()}, "
            "where nothing can be raised; pass debug_nan=True to the outermost transform"
        )


def run_watched(
    program: Program, operands: Sequence[Any], unwatched: tuple[int, ...] = ()
) -> tuple[list[Any], bool]:
    """The results of a program, and whether all but the `unwatched` ones are finite."""

    def make() -> Program:
        return Program(simplify_function(trip_wire_function(program.function, unwatched)))

    *found, finite = program.derive(("trip wire", unwatched), make).bind(*operands)
    return found, bool(finite)


@jax.tree_util.register_pytree_with_keys_class
@record
class WithValue:
    """What a function gives, and beside it the value that its derivative is of, which is watched too."""

    outcome: Any
    value: Any

    def tree_flatten_with_keys(self) -> tuple[Sequence[Any], None]:
        return [(_Said(""), self.outcome), (_Said(" of the function"), self.value)], None

    @classmethod
    def tree_unflatten(cls, _: None, parts: Sequence[Any]) -> "WithValue":
        return cls(*parts)


@record
class _Said:
    """The key of a pytree, as an error says it."""

    text: str

    def __str__(self) -> str:
        return self.text


@record
class Origin:
    """Where the residuals of a linear function come from: what is needed to explain one that is not finite.

    Attributes:
        subject: what a person calls the linear function.
        forward: the program that made the residuals.
        names: what a person calls each of its operands.
        reverse: whether the linear function is a pullback.
    """

    subject: str
    forward: Program
    names: tuple[str, ...]
    reverse: bool

    def run(
        self,
        program: Program,
        residuals: Sequence[Any],
        given: Mapping[str, Any],
        names: Sequence[str],
        retained: Sequence[Any],
    ) -> list[Any]:
        """The results of a linear program.

        Args:
            given: what it is applied to, by what a person calls it.
            names: what a person calls each result.
            retained: the operands that `forward` had.

        Raises:
            NonFiniteError: a result is not finite.
            TraceError: a function is being traced.
        """
        refuse_under_trace(self.subject)
        operands = [*residuals, *given.values()]
        found, finite = run_watched(program, operands)
        if finite:
            return found
        trip = Trip.of(self.subject, names, found, commits=False, reverse=self.reverse)
        error = trip.by_inputs(tuple(given), tuple(given.values()))
        came_in = self.names, retained
        if error is None and any(first_bad(x) is not None for x in residuals):
            error = trip.by_inputs(*came_in) or trip.by_operations(self.forward.function, retained, *came_in)
        error = error or trip.by_operations(program.function, operands, *came_in)
        raise error or trip.unexplained()
