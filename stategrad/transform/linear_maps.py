"""What `vjp` and `linearize` give to be called later: linear functions that hold residuals."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from stategrad import jax_compat as compat
from stategrad.backend import Program
from stategrad.backend.transforms import transposed
from stategrad.errors import GradientError
from stategrad.ir.record import record
from stategrad.units import Measure
from stategrad.user_frame import user_line

from .parts import Inputs, Outputs, Place, distinct, shown_part, summed
from .point import Point, Ran, Watch
from .pure import Halves, explained
from .trips import Origin


@record
class Kind:
    """What the linear functions of equal functions and equal requests share."""

    name: str
    halves: Halves
    inputs: Inputs
    outputs: Outputs

    @staticmethod
    def of(point: Point, inputs: Inputs, *, transposable: bool) -> "Kind":
        """The derivative of the outputs at a point by some inputs.

        Args:
            transposable: whether it will be transposed; what makes that impossible is an error now.

        Raises:
            GradientError: the derivative does not exist.
        """
        outputs = point.outputs
        halves = point.pure.halves(inputs.numbers, outputs.numbers, transposable=transposable)
        kind = Kind(point.name, halves, inputs, outputs)
        if transposable and halves.results:
            kind.transposed((True,) * len(halves.results))
        return kind

    def transposed(self, given: tuple[bool, ...]) -> tuple[Program, Sequence[int]]:
        """The program for cotangents of the flagged results of the linear half; and which operands of the
        function it gives cotangents of.
        """
        known, numbers = len(self.halves.residuals), self.inputs.numbers
        flags = (False,) * known + (True,) * len(numbers)
        with explained(self.name):
            pullback, params = transposed(self.halves.linear, flags, given)
        return pullback, [numbers[i - known] for i in params]

    def residuals(self, values: Sequence[Any]) -> list[Any]:
        """The residuals among the operands and results of the forward half."""
        return [values[i] for i in self.halves.residuals]

    def at(self, point: Point, debug_nan: bool, reverse: bool) -> tuple[Ran, tuple[Any, ...]]:
        """Runs the forward half. Gives what it gave, and what a linear function of this kind is made from.

        Raises:
            NonFiniteError, TraceError: with `debug_nan`, as for `Point.run`.
        """
        forward = self.halves.forward
        ran = point.run(forward, watch=Watch() if debug_nan else None)
        fixed = (self, self.residuals(ran.values))
        if not debug_nan:
            return ran, fixed
        what = "pullback" if reverse else "linear function"
        origin = Origin(f"the {what} of {self.name}", forward, point.operand_names, reverse)
        return ran, (*fixed, origin, ran.values[: len(origin.names)])


@jax.tree_util.register_pytree_node_class
class Pullback:
    """The pullback of a function at a point; see `vjp`. A pytree: its leaves are the residuals."""

    def __init__(
        self,
        kind: Kind,
        residuals: Sequence[Any],
        origin: Origin | None = None,
        retained: Sequence[Any] = (),
    ) -> None:
        self._kind = kind
        self._residuals = residuals
        self._origin, self._retained = origin, retained

    def __call__(self, cotangent: Any, state_cts: Any = None) -> Any:
        """The cotangents of what is differentiated by.

        Args:
            cotangent: of what the function returned, of the same structure, shapes and dtypes. None stands
                for zero; results without a derivative take None or float0.
            state_cts: of what the `final_states` held at the end, in the container that they were given in.

        Raises:
            GradientError: a cotangent of another structure, shape or dtype.
            NonFiniteError: `vjp` was asked for `debug_nan`, and something is not finite.
        """
        kind = self._kind
        leaves, of = self._given(cotangent, state_cts)
        found = summed(leaves)
        given = tuple(number in found for number in kind.halves.results)
        if not any(given):
            return kind.inputs.build({}, of)
        program, numbers = kind.transposed(given)
        cotangents = {n: found[n] for n in kind.halves.results if n in found}
        results = self._run(program, cotangents, numbers)
        return kind.inputs.build(dict(zip(numbers, results, strict=True)), of)

    def _run(self, program: Program, cotangents: Mapping[int, Any], numbers: Sequence[int]) -> list[Any]:
        if self._origin is None:
            return program.bind(*self._residuals, *cotangents.values())
        inputs, outputs = self._kind.inputs.names, self._kind.outputs.names
        given = {f"the cotangent of {outputs[n]}": x for n, x in cotangents.items()}
        names = [f"the cotangent of {inputs[n]}" for n in numbers]
        return self._origin.run(program, self._residuals, given, names, self._retained)

    def _given(self, cotangent: Any, state_cts: Any) -> tuple[list[tuple[Place, Any]], Measure | None]:
        """The cotangents, and the unit of their products with the results."""
        outputs = self._kind.outputs
        if outputs.final is None and state_cts is not None:
            raise GradientError(
                f"the pullback of {self._kind.name} is given state_cts{user_line()}, but vjp was not asked "
                "for any; name their States in final_states=…"
            )
        given = [(outputs.value, cotangent), *([(outputs.final, state_cts)] if outputs.final else [])]
        if not self._kind.inputs.unit_aware:
            return [leaf for part, each in given for leaf in part.leaves(each, "cotangent")], None
        found = [leaf for part, each in given for leaf in part.cotangents(each)]
        if not found:
            return [], outputs.value.measure
        measures = {m and m.unit: m for _, _, m in found}
        if len(measures) > 1:
            units = ", ".join(str(unit or 1) for unit in measures)
            raise GradientError(
                f"the products of cotangents and results of {self._kind.name} have the units "
                f"{units}{user_line()}, and cannot be summed"
            )
        return [(place, array) for place, array, _ in found], next(iter(measures.values()))

    def tree_flatten(self) -> tuple[Sequence[Any], Any]:
        return (self._residuals, self._retained), (self._kind, self._origin)

    @classmethod
    def tree_unflatten(cls, fixed: tuple[Kind, Origin | None], arrays: Sequence[Any]) -> "Pullback":
        (kind, origin), (residuals, retained) = fixed, arrays
        return cls(kind, residuals, origin, retained)

    def __repr__(self) -> str:
        return f"<pullback of {self._kind.name}>"


@jax.tree_util.register_pytree_node_class
class LinearMap:
    """The derivative of a function at a point as a linear function; see `linearize`. A pytree: its leaves are
    the residuals.
    """

    def __init__(
        self,
        kind: Kind,
        residuals: Sequence[Any],
        origin: Origin | None = None,
        retained: Sequence[Any] = (),
    ) -> None:
        self._kind = kind
        self._residuals = residuals
        self._origin, self._retained = origin, retained

    def __call__(self, *tangents: Any, state_tangents: Any = None) -> Any:
        """The tangent of the value, or the pair of it and those of the `final_states` if there are any.

        Args:
            tangents: of the arguments that are differentiated by, each of the argument's structure, shapes
                and dtypes. None stands for zero, and so do no tangents at all.
            state_tangents: of what the `grad_states` hold on entry, in their container.

        Raises:
            GradientError: a tangent of another structure, shape or dtype, too many or too few of them.
            NonFiniteError: `linearize` was asked for `debug_nan`, and something is not finite.
        """
        found = self.push(distinct(self._given(tangents, state_tangents)))
        outputs = self._kind.outputs.build(found)
        return outputs[0] if len(outputs) == 1 else outputs

    def push(self, tangents: Mapping[int, Any]) -> dict[int, Any]:
        """Tangents of results by number, from tangents of operands by number; others are zero."""
        halves, numbers = self._kind.halves, self._kind.inputs.numbers
        types = (v.type for v in halves.linear.function.params[len(halves.residuals) :])
        given = [
            tangents[n] if n in tangents else jnp.zeros(t.shape, compat.jax_dtype(t.dtype))
            for n, t in zip(numbers, types, strict=True)
        ]
        return dict(zip(halves.results, self._run(dict(zip(numbers, given, strict=True))), strict=True))

    def _run(self, tangents: Mapping[int, Any]) -> list[Any]:
        halves = self._kind.halves
        if self._origin is None:
            return halves.linear.bind(*self._residuals, *tangents.values())
        inputs, outputs = self._kind.inputs.names, self._kind.outputs.names
        given = {f"the tangent of {inputs[n]}": x for n, x in tangents.items()}
        names = [f"the tangent of {outputs[n]}" for n in halves.results]
        return self._origin.run(halves.linear, self._residuals, given, names, self._retained)

    def _given(self, tangents: Sequence[Any], state_tangents: Any) -> list[tuple[Place, Any]]:
        kind, args, states = self._kind, self._kind.inputs.args or (), self._kind.inputs.states
        if tangents and len(tangents) != len(args):
            raise GradientError(
                f"the linear function of {kind.name} is given {len(tangents)} tangents{user_line()}, "
                f"expected {len(args)}, of {shown_part(args)}"
            )
        if states is None and state_tangents is not None:
            raise GradientError(
                f"the linear function of {kind.name} is given state_tangents{user_line()}, but linearize was "
                "not asked for any; name their States in grad_states=…"
            )
        found = [
            leaf
            for part, each in zip(args, tangents or (None,) * len(args), strict=True)
            for leaf in part.leaves(each, "tangent")
        ]
        return [*found, *(states.leaves(state_tangents, "tangent") if states is not None else ())]

    def tree_flatten(self) -> tuple[Sequence[Any], Any]:
        return (self._residuals, self._retained), (self._kind, self._origin)

    @classmethod
    def tree_unflatten(cls, fixed: tuple[Kind, Origin | None], arrays: Sequence[Any]) -> "LinearMap":
        (kind, origin), (residuals, retained) = fixed, arrays
        return cls(kind, residuals, origin, retained)

    def __repr__(self) -> str:
        return f"<linear function of {self._kind.name}>"
