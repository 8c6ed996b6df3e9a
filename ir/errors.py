"""What can go wrong with the IR itself; each message names the place and what was expected."""


class IRError(Exception):
    """The base of every error that the IR raises."""


class IRTypeError(IRError, TypeError):
    """An operation was given operands or attributes that its row does not accept."""


class IRSyntaxError(IRError, ValueError):
    """A text is not a program: `line` and `column` count from 1; the message ends in an excerpt."""

    def __init__(self, message: str, line: int = 0, column: int = 0, excerpt: str = "") -> None:
        self.line, self.column, self.excerpt = line, column, excerpt
        where = f"line {line}, column {column}: " if line else ""
        super().__init__(f"{where}{message}" + (f"\n{excerpt}" if excerpt else ""))


class IRVerifyError(IRError):
    """A program breaks a rule of the IR: SSA order, types, effects, locations."""


class EvaluationError(IRError):
    """A program cannot be evaluated with the given arguments and cells."""


class DerivativeError(IRError, TypeError):
    """A derivative was asked for that does not exist (an unbounded loop in reverse, an op without one)."""
