"""Pushes a basis through a linear program: all its elements at once, as sparse as they are known to be.

Each operation is linear in what depends on the basis. So it may act on a core instead of on every element,
wherever it treats the tied axes element by element; other ties are written out before it.
"""

from collections.abc import Sequence

from stategrad.ir import Builder, Function, Operation, Value

from .basis import Sparse, one_hot
from .push_rules import adds_fixed, rule_of
from .recompute import Silencer
from .splat import is_zero, splat

Pushed = Sparse | Value | None


class Push:
    """A pure function without calls, in the place of a builder: whatever of it depends on other parameters
    than the first, known ones is linear in them. What does not depend on a basis is computed once for all;
    what is computed again prints nothing.
    """

    def __init__(self, b: Builder, function: Function, known: Sequence[Value]) -> None:
        self.b = b
        self._body = function.body
        self._fixed = dict(zip(function.params, known, strict=False))
        self._linear = function.params[len(known) :]
        self._makers: dict[Value, Operation] = {}
        self._copied: set[Operation] = set()
        self._silencer: Silencer | None = None
        self._pushed: dict[Value, Sparse | None] = {}

    def basis(self, index: int) -> list[Pushed]:
        """The results for the standard basis of one linear parameter, the others being zero: None where
        nothing of the basis arrives. A bare value is the same, and so zero, for the whole basis.
        """
        self._pushed = dict.fromkeys(self._linear)
        start = self._linear[index]
        self._pushed[start] = one_hot(self.b, start.type)
        for op in self._body.operations:
            self.b.location = op.location
            self._step(op)
        self._silencer = Silencer(str)
        return [self._pushed[v] if v in self._pushed else self._fixed[v] for v in self._body.results]

    def _step(self, op: Operation) -> None:
        if not any(v in self._pushed for v in op.operands):
            if op not in self._copied:
                self.copy(op)
                self._copied.add(op)
            return
        op = op if self._silencer is None else self._silencer.operation(op)
        if self.arriving(op):
            rule_of(op)(self, op)
        elif op.regions or adds_fixed(self, op):
            self.copy(op)
        else:
            self._pushed.update(dict.fromkeys(op.results))

    # ------------------------------------------------------------------------------------------ for rules
    def arriving(self, op: Operation) -> list[Sparse]:
        """What of the basis arrives at an operation."""
        return [x for x in map(self._pushed.get, op.operands) if x is not None]

    def pushed(self, value: Value) -> Sparse | None:
        """What of the basis arrives at a value."""
        return self._pushed.get(value)

    def fixed(self, value: Value) -> Value:
        """A value that is the same for the whole basis."""
        return self.b.zeros(value.type) if value in self._pushed else self._fixed[value]

    def is_zero(self, value: Value) -> bool:
        """Whether a value is known to be zero for the whole basis."""
        return self.pushed(value) is None if value in self._pushed else is_zero(self._makers.get(value))

    def scalar(self, value: Value) -> Value | None:
        """The one number that a value is full of for the whole basis, if it is known."""
        type = value.type.with_shape(())
        if value in self._pushed:
            return self.b.zeros(type)
        made = self._makers.get(value)
        return (
            None if made is None or splat(made) is None else self.b.constant(made.attributes["value"], type)
        )

    def copy(self, op: Operation) -> None:
        """Emits an operation that does not depend on the basis."""
        self.keep(op.results, self.b.copy(op, list(map(self.fixed, op.operands))))
        self._makers.update(dict.fromkeys(op.results, op))

    def keep(self, old: Sequence[Value], new: Sequence[Value]) -> None:
        """Says what values are that do not depend on the basis."""
        self._fixed.update(zip(old, new, strict=True))

    def bind(self, value: Value, found: Sparse) -> None:
        """Says what of the basis arrives at a value."""
        found.core.array.name = found.core.array.name or value.name
        self._pushed[value] = found
