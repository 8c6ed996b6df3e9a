"""Backward rules that read States under JAX's own `jax.grad` and `jax.vjp`, inside a traced function.

JAX runs such a rule when it pulls back. It then reads what the State holds by then, where it has to see what
the State held when the forward call returned. When that was is not known here: so an earlier write is enough
for an error. Under our transforms the rules become functions of what they read (`backend.custom_rules`).
"""

from collections.abc import Iterable

from stategrad.ir import Cell, Effect, Operation

from .errors import StateError
from .state_primitives import CellId


class Writes:
    """The cells that the program has written so far, in the order of the program."""

    def __init__(self) -> None:
        self._written: set[Cell] = set()
        self._begun: set[Cell] = set()

    def note(self, of: Cell, *, cell: CellId, leaf: tuple[int, int]) -> None:
        """Notes a write. The first one to a State of the trace is its creation: nothing reads before that."""
        created = cell.local and not leaf[0] and of not in self._begun
        (self._begun if created else self._written).add(of)

    def check_backward(self, operations: Iterable[Operation]) -> None:
        """Demands that operations of a pullback read nothing that was written before.

        Raises:
            StateError: they do.
        """
        for op in operations:
            for cell, effect in op.effects.items():
                if effect & Effect.READ and cell in self._written:
                    raise StateError(
                        f"the State {cell.name!r} is written, and read in the backward pass of jax.grad or "
                        f"jax.vjp ({op.location.source}), where a rule has to see the value from its forward "
                        "call; use stategrad.grad or stategrad.vjp instead of JAX's transformation"
                    )
