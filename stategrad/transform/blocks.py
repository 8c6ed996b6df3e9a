"""The blocks of a Jacobian or Hessian, in the containers of what was differentiated and of what it was by."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from stategrad import jax_compat as compat
from stategrad.ir import Cell, Type
from stategrad.ir.record import record
from stategrad.units import Measure, quantity, ratio

from .selection import Selection


class _Part(NamedTuple):
    """A derivative of one output by some inputs: their numbers, None for one that the function does not
    touch.
    """

    type: Type
    measure: Measure | None
    by: tuple[int | None, ...] = ()


@record
class Blocks:
    """The derivatives of some order, of each output by each choice of inputs, the last input running fastest.

    Attributes:
        found: one array for each block.
        order: by how many inputs each output is differentiated.
        like_input: whether a derivative has the element type of the first input, rather than of the output.
    """

    selection: Selection
    found: Sequence[Any]
    order: int
    like_input: bool

    def build(self) -> Any:
        """The pytree of the outputs; in place of each the container of the inputs, once for each order."""
        selection = self.selection
        values = zip(selection.traced.function.results, selection.value_measures, strict=False)
        parts = [self._nested(r, _Part(v.type, measure)) for r, (v, measure) in enumerate(values)]
        return selection.value_tree.unflatten(parts)

    def _nested(self, output: int, part: _Part) -> Any:
        if len(part.by) == self.order:
            return quantity(self._block(output, part), part.measure)
        return self.selection.arrange(lambda which, by: self._nested(output, self._by(part, which, by)))

    def _by(self, part: _Part, which: Any, measure: Measure | None) -> _Part:
        """The derivative by one more input."""
        selection, number = self.selection, None
        if isinstance(which, int):
            number, type = which, selection.traced.function.params[selection.args[which]].type
        elif isinstance(which, Cell):
            number, type = len(selection.args) + selection.wanted.index(which), which.type
        else:
            type = compat.type_of_aval(which)
        dtype = type.dtype if self.like_input and not part.by else part.type.dtype
        shape = (*part.type.shape, *type.shape)
        return _Part(Type(dtype, shape), ratio(part.measure, measure), (*part.by, number))

    def _block(self, output: int, part: _Part) -> Any:
        inputs = len(self.selection.args) + len(self.selection.wanted)
        place = output
        for number in part.by:
            if number is None:
                return jnp.zeros(part.type.shape, compat.jax_dtype(part.type.dtype))
            place = place * inputs + number
        return self.found[place]
