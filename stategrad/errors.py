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
