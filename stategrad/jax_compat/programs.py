"""Programs of JAX: their equations, and the rules that a primitive of ours gives to JAX's transforms."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax._src import api_util, core, dtypes, source_info_util
from jax._src.ad_util import Zero
from jax._src.interpreters import ad, batching, mlir
from jax.extend.core import Primitive

from stategrad.ir import Type

from .traces import STATE_READ, STATE_WRITE
from .types import aval_of_type

Literal = core.Literal
ClosedOver = ad.CustomVJPException
PLAIN_CONTEXT = core.JaxprEqnContext()


def nested_programs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    return core.jaxprs_in_params(params)


def outside_effects(equation: Any) -> frozenset[Any]:
    """The effects of an equation that are JAX's and not ours: callbacks, prints, …"""
    ours = (type(STATE_READ), type(STATE_WRITE), core.NamedAxisEffect)
    return frozenset(e for e in equation.effects if not isinstance(e, ours))


def is_transposed(equation: Any) -> bool:
    """Whether an equation comes from a pullback that JAX runs: of `jax.grad`, `jax.vjp`, …"""
    names = equation.source_info.name_stack.stack
    return any(isinstance(n, source_info_util.Transform) and n.name == "transpose" for n in names)


def present_as(function: Callable[..., Any], users: Callable[..., Any], arguments: Sequence[str]) -> None:
    """Lets JAX's errors name the user's function and arguments where they are about `function`."""
    info = core.DebugInfo("stategrad", api_util.fun_sourceinfo(users), tuple(arguments), None)
    function.__fun_debug_info__ = info  # pyright: ignore[reportFunctionMemberAccess]


def touches_state(program: Any) -> bool:
    """Whether an equation or a jaxpr reads or writes States."""
    return any(isinstance(e, (type(STATE_READ), type(STATE_WRITE))) for e in program.effects)


def push_forward(
    function: Callable[..., Sequence[Any]], primals: Sequence[Any], tangents: Sequence[Any]
) -> list[tuple[Any, Any]]:
    """Results of a function and their tangents; a tangent is None where it is zero, among `tangents` too."""
    with core.take_current_trace() as parent:
        trace = ad.JVPTrace(parent, core.TraceTag())
        pairs = zip(primals, tangents, strict=True)
        tracers = [x if t is None else ad.JVPTracer(trace, x, t) for x, t in pairs]
        with core.set_current_trace(trace):
            found = function(*tracers)
        return [_without_zero(*trace.to_primal_tangent_pair(x)) for x in found]


def _without_zero(primal: Any, tangent: Any) -> tuple[Any, Any]:
    zero = type(tangent) is Zero or jax.typeof(tangent).dtype == jax.dtypes.float0
    return primal, None if zero else tangent


def equation(
    primitive: Any,
    params: dict[str, Any],
    operands: Sequence[Type],
    results: Sequence[Type],
    effects: Any,
    context: Any,
    source: Any = None,
) -> Any:
    """An equation of a jaxpr, for JAX's lowering rules."""
    variables = [core.Var(aval_of_type(t)) for t in (*operands, *results)]
    before, after = variables[: len(operands)], variables[len(operands) :]
    return core.new_jaxpr_eqn(before, after, primitive, params, effects or core.no_effects, source, context)


def primitive_named(name: str) -> Any:
    """A primitive of JAX that has a lowering rule, by its name, or None."""
    return next((p for p in mlir._lowerings if p.name == name), None)


def define_transforms(
    primitive: Primitive,
    jvp: Callable[..., Any],
    transpose: Callable[..., Any],
    batch: Callable[..., Any],
) -> None:
    """Tells JAX how a primitive is differentiated, transposed and batched.

    `jvp(primals, tangents, **params)`, `transpose(cotangents, *operands, **params)` and
    `batch(operands, axes, **params)` are as JAX calls them.
    """
    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch


def is_active(tangent: Any) -> bool:
    """Whether a tangent that JAX gives to a rule can be nonzero: neither zero nor of an integer."""
    return type(tangent) is not Zero and core.typeof(tangent).dtype != dtypes.float0


def zero_tangent(of: Type) -> Any:
    """The symbolic zero tangent of a value of that type."""
    return Zero(aval_of_type(of).to_tangent_aval())


def is_linear(operand: Any) -> bool:
    """Whether JAX asks a transpose rule for the cotangent of this operand."""
    return ad.is_undefined_primal(operand)
