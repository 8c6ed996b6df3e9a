"""Foreign operations: primitives of JAX without a row of their own. All their rules come from JAX.

A rule is traced for the single primitive, imported, and kept: by the parameters, the types of the operands,
and which of them are active, linear or batched.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from stategrad.ir import (
    Builder,
    DerivativeError,
    Derived,
    Function,
    IRTypeError,
    LazySource,
    Location,
    OpDef,
    Operation,
    Region,
    Type,
    Value,
)
from stategrad.ir.opdef import PURE, Effects, Tangents

from . import jax_compat as compat
from .errors import TraceError
from .foreign_program import ForeignProgram, beside, parameter_key, tangent_program, whole
from .traced_programs import bind, expanded, is_high, result_avals
from .user_frame import resolve_traceback

EFFECTS, CONTEXT, AXES = "jax_effects", "jax_context", "jax_axes"
"""Attributes beside the primitive's parameters, there only where they say something."""

_KEPT = 256
_COST = 256
"""How many times as dear as looking at an element they are taken to be: solvers are among them."""
_USERS = ("custom_jvp_call", "custom_vjp_call")
_LINEAR_ONLY = ("custom_lin", "call_hi_primitive_linearized")  # made to be transposed, not to be run


_kept_of_users = OrderedDict[Hashable, Any]()


def forget_rules_of_users() -> None:
    """Keeps no derivative rule that a user wrote, nor what it closes over, after a program is made."""
    _kept_of_users.clear()


class ClosureError(TraceError):
    """A program closes over a value of another trace."""


class TracedSource(LazySource):
    """The user's line of an equation, found when it is shown; `info` is what JAX knows of the place."""

    __slots__ = ("info",)

    def __init__(self, info: Any, otherwise: Location) -> None:
        super().__init__(resolve_traceback, info.traceback, otherwise)
        self.info = info

    @property
    def scope(self) -> str:
        """The `jax.named_scope`s around it: `encoder/attention`."""
        stack = self.info.name_stack
        return str(stack) if len(stack) else ""


class ForeignOp(OpDef):
    """The operation that stands for one primitive of JAX. Attributes are its parameters, as JAX's objects.

    Args:
        name: without the prefix `jax.`.
        import_program: makes an IR function of a jaxpr without States.

    Attributes:
        calls_back: whether Python runs in it, on the host.
        holds_function: whether a parameter is a function of the user's: a callback, a derivative rule.
    """

    may_be_nan = True

    def __init__(self, name: str, primitive: Any, import_program: Callable[[Any, str], Function]) -> None:
        self.name = f"jax.{name}"
        self.doc = f"The primitive `{primitive.name}` of JAX, by JAX's own rules."
        self.primitive = primitive
        self._import = import_program
        self.calls_back = "callback" in name
        self.holds_function = self.calls_back or "custom_" in name
        users = primitive.name in (*_USERS, *_LINEAR_ONLY)
        self._kept = _kept_of_users if users else OrderedDict[Hashable, Any]()

    def attributes(self, equation: Any) -> Mapping[str, Any]:
        """The attributes that an equation of JAX turns into."""
        effects, axes = compat.outside_effects(equation), compat.named_axes(equation)
        special = equation.ctx is not compat.PLAIN_CONTEXT
        if not effects and not special and not axes:
            return equation.params
        return {
            **equation.params,
            **({AXES: axes} if axes else {}),
            **({EFFECTS: effects} if effects else {}),
            **({CONTEXT: equation.ctx} if special else {}),
        }

    # ------------------------------------------------------------------ meaning
    def infer(
        self, types: Sequence[Type], attributes: Mapping[str, Any], regions: Sequence[Region]
    ) -> tuple[Type, ...]:
        return self._derive("infer", types, attributes, (), lambda: self._types(types, attributes))

    def _types(self, types: Sequence[Type], attributes: Mapping[str, Any]) -> tuple[Type, ...]:
        params, context = _split(attributes)
        try:
            found = result_avals(self.primitive, params, context, [compat.aval_of_type(t) for t in types])
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise IRTypeError(f"{self.name}({', '.join(map(str, types))}): {e}") from e
        return tuple(compat.type_of_aval(a) for a in found)

    def effects_of(self, op: Operation) -> Effects:
        return ({}, True) if EFFECTS in op.attributes else PURE

    def cost_of(self, op: Operation) -> int:
        return _COST * super().cost_of(op)

    def jax_effects(self, op: Operation) -> frozenset[Any]:
        """The effects of JAX that it has: prints and other callbacks."""
        return op.attributes.get(EFFECTS, frozenset())

    def evaluate_op(self, machine: Any, op: Operation, args: Sequence[Any]) -> Sequence[Any]:
        self._check_runs(op)
        params, context = _split(op.attributes)
        given = [jax.numpy.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x for x in args]
        found = bind(self.primitive, params, context, given)
        return [
            x if r.type.dtype.kind == "k" else np.asarray(x) for x, r in zip(found, op.results, strict=True)
        ]

    def lower_op(self, hlo: Any, op: Operation, operands: Sequence[Any]) -> Sequence[Any]:
        self._check_runs(op)
        params, context = _split(op.attributes)
        before, after = [v.type for v in op.operands], [v.type for v in op.results]
        avals = [compat.aval_of_type(t) for t in before]
        if is_high(self.primitive, params, avals):
            return hlo.inline(self._expanded(params, context, before, op.attributes).body, operands)
        equation = compat.equation(
            self.primitive, params, before, after, self.jax_effects(op), context, _source_info(op.location)
        )
        return hlo.equation(equation, operands, op.location)

    def _check_runs(self, op: Operation) -> None:
        if self.primitive.name in _LINEAR_ONLY:
            raise DerivativeError(
                f"a function with jax.custom_vjp (at {op.location.source}) has no derivative in forward "
                "mode; use reverse mode, or give it its rule with jax.custom_jvp"
            )

    def _expanded(
        self, params: dict[str, Any], context: Any, types: Sequence[Type], attributes: Mapping[str, Any]
    ) -> Function:
        """The program that JAX replaces the primitive by before it lowers it."""

        def expand() -> Function:
            avals = [compat.aval_of_type(t) for t in types]
            return self._import(expanded(self.primitive, params, context, avals), "expanded")

        return self._derive("expand", types, attributes, (), expand)

    # ------------------------------------------------------------------ rules
    def jvp_of(
        self,
        b: Builder,
        op: Operation,
        operands: Sequence[Value],
        tangents: Tangents,
        results: Sequence[Value],
    ) -> list[Value | None]:
        active = self._active(op, tangents)
        if not any(active) or not any(r.type.differentiable for r in op.results):
            return [None] * len(op.results)

        def trace(apply: Any, avals: Sequence[Any], results: Sequence[Any]) -> ForeignProgram:
            return tangent_program(apply, avals, active, self._import, partial(beside, op))

        program = self._rule("jvp", op, active, trace)
        found = iter(program.emit(b, [*operands, *results, *(t for t in tangents if t is not None)]))
        return [next(found) if given else None for given in program.given]

    def push_of(
        self, b: Builder, op: Operation, operands: Sequence[Value], tangents: Tangents
    ) -> tuple[Sequence[Value], list[Value | None]]:
        """The user's own rules give the results too, as JAX has it: `fwd` of `jax.custom_vjp` alone runs."""
        if self.primitive.name not in _USERS:
            return super().push_of(b, op, operands, tangents)
        active = self._active(op, tangents)

        def trace(apply: Any, avals: Sequence[Any], results: Sequence[Any]) -> ForeignProgram:
            return tangent_program(apply, avals, active, self._import, partial(whole, op))

        program = self._rule("push", op, active, trace)
        values = [*operands, *(t for t in tangents if t is not None)]
        found = program.emit(b, values, primal=op.location)
        rest = iter(found[len(op.results) :])
        return found[: len(op.results)], [next(rest) if given else None for given in program.given]

    def _active(self, op: Operation, tangents: Tangents) -> tuple[bool, ...]:
        active = tuple(t is not None for t in tangents)
        if self.primitive.name == "custom_jvp_call" and any(active[: op.attributes["num_consts"]]):
            raise DerivativeError(_closes_over(op))  # JAX would drop these tangents without a word
        return active

    def transpose_of(
        self, b: Builder, op: Operation, cotangents: Tangents, operands: Tangents
    ) -> list[Value | None]:
        linear = tuple(x is None for x in operands)
        given = tuple(c is not None for c in cotangents)
        if not any(given) or not any(linear):
            return [None] * len(operands)

        def trace(apply: Any, avals: Sequence[Any], results: Sequence[Any]) -> ForeignProgram:
            known = [a for a, free in zip(avals, linear, strict=True) if not free]
            seeds = [a for a, there in zip(results, given, strict=True) if there]
            rule = _transposed(apply, avals, linear, given)
            return ForeignProgram.of(self._import(jax.make_jaxpr(rule)(*known, *seeds), "transpose"))

        program = self._rule("transpose", op, (linear, given), trace)
        present = [v for v in (*operands, *cotangents) if v is not None]
        found = iter(program.emit(b, present))
        return [next(found) if free else None for free in linear]

    def batch_of(
        self, b: Builder, op: Operation, operands: Sequence[Value], batched: Sequence[bool]
    ) -> Sequence[Value]:
        size = next(v.type.shape[0] for v, flag in zip(operands, batched, strict=True) if flag)
        axes = tuple(0 if flag else None for flag in batched)

        def trace(apply: Any, avals: Sequence[Any], results: Sequence[Any]) -> ForeignProgram:
            stacked = [compat.aval_of_type(v.type) for v in operands]
            rule = jax.vmap(apply, in_axes=axes, axis_size=size)
            return ForeignProgram.of(self._import(jax.make_jaxpr(rule)(*stacked), "batch"))

        return self._rule("batch", op, (axes, size), trace).emit(b, operands)

    def named_axes(self, op: Operation) -> frozenset[Any]:
        return op.attributes.get(AXES, frozenset())

    def carried_along(self, op: Operation, batched: Sequence[bool], axis: Any) -> Sequence[bool]:
        return self._along(op, [v.type for v in op.operands], batched, axis)[1]

    def batch_along(
        self, b: Builder, op: Operation, operands: Sequence[Value], batched: Sequence[bool], axis: Any
    ) -> tuple[Sequence[Value], Sequence[bool]]:
        program, carried = self._along(op, [v.type for v in op.operands], batched, axis)
        return program.emit(b, operands), carried

    def _along(
        self, op: Operation, types: Sequence[Type], batched: Sequence[bool], axis: tuple[Hashable, int]
    ) -> tuple[ForeignProgram, Sequence[bool]]:
        """The program that works along a batch axis that has a name, and which of its results carry it."""
        carried: list[bool] = []

        def trace(apply: Any, avals: Sequence[Any], results: Sequence[Any]) -> ForeignProgram:
            stacked = [
                compat.aval_of_type(t.batched(axis[1]) if flag else t)
                for t, flag in zip(types, batched, strict=True)
            ]
            carried.extend(_differs(apply, batched, axis, i, stacked) for i in range(len(results)))
            rule = _mapped(apply, batched, axis, [0 if flag else None for flag in carried])
            return ForeignProgram.of(self._import(jax.make_jaxpr(rule)(*stacked), "batch"))

        def make() -> tuple[ForeignProgram, Sequence[bool]]:
            return self._trace("batch", op, trace), tuple(carried)

        return self._derive("along", types, op.attributes, (tuple(batched), axis), make)

    def _rule(
        self, kind: str, op: Operation, pattern: Hashable, trace: Callable[..., ForeignProgram]
    ) -> ForeignProgram:
        """The program that JAX's rule of this kind gives for an operation, traced once for each pattern."""
        types = [v.type for v in op.operands]
        return self._derive(kind, types, op.attributes, pattern, lambda: self._trace(kind, op, trace))

    def _trace(self, kind: str, op: Operation, trace: Callable[..., ForeignProgram]) -> ForeignProgram:
        params, context = _split(op.attributes)

        def apply(*operands: Any) -> list[Any]:
            return bind(self.primitive, params, context, operands)

        avals = [compat.aval_of_type(v.type) for v in op.operands]
        results = [compat.aval_of_type(v.type) for v in op.results]
        try:
            return trace(apply, avals, results)
        except (ClosureError, compat.ClosedOver, jax.errors.UnexpectedTracerError) as e:
            raise DerivativeError(_closes_over(op)) from e
        except DerivativeError as e:
            raise DerivativeError(f"{e} (at {op.location.source})") from e
        except (NotImplementedError, TypeError, ValueError, AssertionError) as e:
            what = "batching rule" if kind == "batch" else "derivative"
            raise DerivativeError(
                f"JAX gives no {what} for {self.name} (at {op.location.source}): {e}"
            ) from e

    def _derive(
        self,
        kind: str,
        types: Sequence[Type],
        attributes: Mapping[str, Any],
        pattern: Hashable,
        make: Callable[[], Any],
    ) -> Any:
        if self.calls_back:
            return make()  # what is kept would keep what the callback closes over
        key = (self.name, kind, tuple(types), pattern, parameter_key(attributes), compat.axes_in_scope())
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = make()
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return found


def _mapped(
    apply: Callable[..., Any], batched: Sequence[bool], axis: tuple[Hashable, int], out_axes: Any
) -> Callable[..., Any]:
    """A function of operands of which some carry a leading axis, which has a name and this length."""
    name, size = axis
    in_axes = (0, *(0 if flag else None for flag in batched))
    mapped = jax.vmap(lambda _, *xs: apply(*xs), in_axes, out_axes, axis_name=name, axis_size=size)
    return lambda *operands: mapped(np.zeros(size, bool), *operands)


def _differs(
    apply: Callable[..., Any], batched: Sequence[bool], axis: Any, number: int, operands: Sequence[Any]
) -> bool:
    """Whether a result differs between the elements of the batch."""
    try:
        jax.eval_shape(_mapped(lambda *xs: apply(*xs)[number], batched, axis, None), *operands)
    except ValueError:  # the only way in which JAX tells
        return True
    return False


def _split(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The parameters of the primitive and the context that it is applied in."""
    params = {k: v for k, v in attributes.items() if k not in (EFFECTS, CONTEXT, AXES)}
    return params, attributes.get(CONTEXT, compat.PLAIN_CONTEXT)


def _closes_over(op: Operation) -> str:
    return (
        f"{op.results[0].name} (at {op.location.source}) or its derivative rule closes over a value of the "
        "traced function, but the rule is about arguments alone; pass the value as an argument"
    )


def _source_info(location: Location) -> Any:
    while isinstance(location, Derived):
        location = location.base
    return location.info if isinstance(location, TracedSource) else None


def _transposed(
    apply: Any, avals: Sequence[Any], linear: Sequence[bool], given: Sequence[bool]
) -> Callable[..., Any]:
    """A function of the known operands and the given cotangents: the cotangents of the linear operands."""

    def rule(*values: Any) -> Sequence[Any]:
        known = iter(values)
        fixed = [None if free else next(known) for free in linear]

        def forward(*free: Any) -> list[Any]:
            each = iter(free)
            found = apply(*(next(each) if flag else x for flag, x in zip(linear, fixed, strict=True)))
            return [x for x, there in zip(found, given, strict=True) if there]

        primals = [a for a, free in zip(avals, linear, strict=True) if free]
        return jax.linear_transpose(forward, *primals)(list(known))

    return rule
