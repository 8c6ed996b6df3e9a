"""What a program may not do with States, though each single read and write is well-formed."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from stategrad.ir import Cell, Effect, Operation

from .errors import StateError

if TYPE_CHECKING:
    from .import_equations import Importer


class StateUses:
    """The reads and writes of the States of one import so far, in the order of the program."""

    def __init__(self) -> None:
        self._written: set[Cell] = set()
        self._created: dict[Cell, Importer] = {}

    def read(self, cell: Cell, at: "Importer") -> None:
        """Notes a read.

        Raises:
            StateError: the State was created in a loop, a branch or a nested jit that `at` is not inside of.
        """
        created, place = self._created.get(cell), at
        while created is not None and place is not created:
            if place.around is None:
                raise StateError(
                    f"the State {cell.name!r} was created inside a loop, a branch or a nested jit and is "
                    f"gone with it ({at.b.location.source}); create it outside, or return its value"
                )
            place = place.around

    def write(self, cell: Cell, at: "Importer", creates: bool) -> None:
        """Notes a write. It raises what `read` raises."""
        if creates:
            self._created[cell] = at
        else:
            self.read(cell, at)
            self._written.add(cell)

    def check_backward(self, operations: Iterable[Operation]) -> None:
        """Demands that operations of a pullback that JAX runs read nothing that was written before.

        JAX runs the backward rule of a `jax.custom_vjp` when it pulls back. The rule then reads what the
        State holds by then, where it has to see what the State held when the forward call returned. When that
        was is not known here: so an earlier write is enough for an error. Under our transforms the rules
        become functions of what they read (`backend.custom_rules`).

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
