"""What can go wrong for a user. Each message says what was given, what was expected, where, and what to write
instead.
"""


class StategradError(Exception):
    """The base of every error that stategrad raises on purpose."""


class StateError(StategradError, TypeError):
    """A State was read or written where or how that is not possible."""


class TraceError(StategradError, TypeError):
    """A function cannot be traced: its arguments or results are not arrays, or JAX refused it."""


class GradientError(StategradError, ValueError):
    """A gradient was asked for that does not exist: of a non-scalar, by an integer, by a State that is not
    used.
    """


class NonFiniteError(StategradError, RuntimeError):
    """With `debug_nan=True`: a call would have returned or committed something that is not finite.

    Attributes:
        phase: "forward", "backward" or "tangent"; "input" if an argument or State was not finite on entry;
            "unknown" if evaluation operation by operation stays finite.
        operation: the row that made the first such value, and `location` the user's line.
        steps: the loop steps that it was in, outermost loop first.
        index: where in its result.
        inputs: the names of its operands, or of the argument or State that was not finite.
        tripped: what of the results is not finite, in words.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: str,
        operation: str = "",
        location: object = None,
        steps: tuple[int, ...] = (),
        index: tuple[int, ...] = (),
        inputs: tuple[str, ...] = (),
        tripped: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.phase = phase
        self.operation = operation
        self.location = location
        self.steps = steps
        self.index = index
        self.inputs = inputs
        self.tripped = tripped


class RetraceWarning(UserWarning):
    """A function is traced again and again because a value changes that it reads and is not given."""
