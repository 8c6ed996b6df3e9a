"""Programs of JAX: their equations, and the rules that a primitive of ours gives to JAX's transforms."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax._src import core, dtypes, source_info_util
from jax._src.ad_util import Zero
from jax._src.core import Primitive
from jax._src.interpreters import ad, batching, mlir
from jax._src.util import weakref_cache_key_types

from stategrad.ir import Type

from .traces import STATE_READ, STATE_WRITE
from .types import aval_of_type

Literal = core.Literal
ClosedOver = ad.CustomVJPException
PLAIN_CONTEXT = core.JaxprEqnContext()


def hold_weakly(kind: type) -> None:
    """From now on JAX's caches keep no object of this class alive that is a parameter of equations."""
    weakref_cache_key_types.add(kind)


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


def named_axes(equation: Any) -> frozenset[Any]:
    """The names of the batch axes that an equation works along, as `jax.lax.psum` does."""
    known = core.trace_ctx.axis_env.axis_sizes
    if not known:
        return frozenset()
    named = {e.name for e in equation.effects if isinstance(e, core.NamedAxisEffect)}
    for given in (equation.params.get("axis_name"), equation.params.get("axes")):  # not all have the effect
        named.update(given if isinstance(given, (tuple, list)) else (given,))
    return frozenset(named.intersection(known))


def axes_in_scope() -> tuple[Any, ...]:
    """The named batch axes that there are here, with their lengths."""
    return tuple(core.trace_ctx.axis_env.axis_sizes.items())


def named_axis(name: Any, size: int) -> AbstractContextManager[None]:
    """Inside, collectives may name an axis of this length; without a name, nothing changes."""
    return contextlib.nullcontext() if name is None else core.extend_axis_env_nd([(name, size)])


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

    `jvp(primals, tangents, **params)` and `transpose(cotangents, *operands, **params)` are as JAX calls them;
    `batch(operands, axes, name, size, **params)` also gets the name and length of the new axis.
    """

    def batch_rule(data: Any, operands: Any, axes: Any, **params: Any) -> Any:
        return batch(operands, axes, data.name, data.size, **params)

    ad.primitive_jvps[primitive] = jvp
    ad.primitive_transposes[primitive] = transpose
    batching.fancy_primitive_batchers[primitive] = batch_rule


def is_active(tangent: Any) -> bool:
    """Whether a tangent that JAX gives to a rule can be nonzero: neither zero nor of an integer."""
    return type(tangent) is not Zero and core.typeof(tangent).dtype != dtypes.float0


def zero_tangent(of: Type) -> Any:
    """The symbolic zero tangent of a value of that type."""
    return Zero(aval_of_type(of).to_tangent_aval())


def is_linear(operand: Any) -> bool:
    """Whether JAX asks a transpose rule for the cotangent of this operand."""
    return ad.is_undefined_primal(operand)
