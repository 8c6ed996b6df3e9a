"""JAX traces: which is current, what they do to values, and the effects of reading and writing a State."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax._src import config, core, effects, source_info_util
from jax._src.ad_util import Zero
from jax._src.core import Primitive
from jax._src.interpreters import ad, batching, mlir
from jax._src.interpreters import partial_eval as pe

Tracer = core.Tracer


TRACE, EAGER = core.trace_state_strong_ref, core.eval_trace
"""`TRACE.value is EAGER` is `is_eager()` without a call, for what every call of a compiled function runs."""

NANS, INFS = config.debug_nans, config.debug_infs
"""`NANS.value or INFS.value` is `checks_values()`, for the same."""


def current_trace() -> Any:
    """The JAX trace that a primitive bound now would go to."""
    return core.trace_ctx.trace


def is_eager() -> bool:
    """Whether code runs on concrete arrays now, under no JAX trace."""
    return core.trace_ctx.trace is core.eval_trace


def outside_of_traces() -> AbstractContextManager[None]:
    """Inside, code runs on concrete arrays, whatever traces are in progress."""
    return core.eval_context()


def is_eval_trace(trace: Any) -> bool:
    """Whether a trace is the eager one: none at all."""
    return trace is core.eval_trace


def is_ad_trace(trace: Any) -> bool:
    """Whether a trace differentiates: `jax.jvp`, `jax.grad`, `jax.linearize`."""
    return isinstance(trace, (ad.JVPTrace, ad.LinearizeTrace))


def is_batch_trace(trace: Any) -> bool:
    """Whether a trace batches: `jax.vmap`."""
    return isinstance(trace, batching.BatchTrace)


def is_staging_trace(trace: Any) -> bool:
    """Whether a trace collects a program: `jax.jit`, `jax.make_jaxpr`, the bodies of loops."""
    return isinstance(trace, pe.DynamicJaxprTrace)


def stage(trace: Any, primitive: Primitive, of: Any, effect: Any, params: dict[str, Any]) -> Any:
    """Adds an equation without operands to the program that a trace collects; gives its result, of type `of`.

    What binding does besides, for any primitive and trace, costs several times as much.
    """
    (result,) = trace.emit_eqn([], [of], primitive, params, {effect}, source_info_util.current())
    return result


def is_zero_tangent(tangent: Any) -> bool:
    """Whether JAX knows a tangent to be zero."""
    return type(tangent) is Zero


def unbatched(trace: Any, x: Any) -> tuple[Any, bool]:
    """The value below a batching trace, and whether that trace batches it."""
    value, axis = trace.to_batch_info(x)
    return value, axis is not None and axis is not getattr(batching, "not_mapped", None)


def enclosing_traces(trace: Any) -> Iterator[Any]:
    """A trace and those around it, inside out, without the eager one."""
    while trace is not None and trace is not core.eval_trace:
        yield trace
        trace = getattr(trace, "parent_trace", None)


def jit_is_disabled() -> bool:
    """Whether JAX runs everything eagerly, under `jax.disable_jit`."""
    return config.disable_jit.value


def checks_values() -> bool:
    """Whether JAX looks for NaN or infinities in what compiled functions give, and runs them again."""
    return config.debug_nans.value or config.debug_infs.value


def leak_checking() -> bool:
    """Whether JAX checks for leaked tracers."""
    return config.check_tracer_leaks.value


_TRACE_CONTEXT = jax.make_user_context(None)
_fresh_contexts = itertools.count(1)
_KEPT_CONTEXTS = 2048


def fresh_context() -> AbstractContextManager[None]:
    """Inside, JAX finds none of the bodies that it traced before: they are traced again."""
    if next(_fresh_contexts) % _KEPT_CONTEXTS == 0:
        _forget_traces()
    return keyed_context(object())


def keyed_context(key: object) -> AbstractContextManager[None]:
    """Inside, of the bodies that JAX traced before, it finds those that were traced under the same key."""
    return _TRACE_CONTEXT(key)


def _forget_traces() -> None:
    """Empties the one cache of JAX that has no limit, and would keep what was traced in every old context.
    Compiled functions stay.
    """
    clear = getattr(getattr(pe, "trace_to_jaxpr", None), "cache_clear", None)
    if clear is not None:
        clear()


class _StateRead(effects.Effect):
    def __str__(self) -> str:
        return "StateRead"


class _StateWrite(effects.Effect):
    def __str__(self) -> str:
        return "StateWrite"


STATE_READ, STATE_WRITE = _StateRead(), _StateWrite()
for _cls in (_StateRead, _StateWrite):
    effects.control_flow_allowed_effects.add_type(_cls)
    effects.custom_derivatives_allowed_effects.add_type(_cls)
    effects.lowerable_effects.add_type(_cls)  # our lowering rule raises, and names the State
effects.remat_allowed_effects.add_type(_StateRead)


def call_in_errors(function: Callable[..., Any], name: str, where: str, arguments: Sequence[str]) -> None:
    """Makes JAX's errors about a traced function speak of another one: of its name, the place where it is
    written, and what its argument leaves are called.
    """
    info = core.DebugInfo("stategrad", f"{name}{where and ' at '}{where}", tuple(arguments), None)
    vars(function)["__fun_debug_info__"] = info


def define_effectful(
    primitive: Primitive,
    type_rule: Callable[..., Any],
    impl: Callable[..., Any],
    lowering: Callable[..., Any],
) -> None:
    """Gives a primitive its type rule (types and JAX effects), its eager meaning and its lowering."""
    primitive.def_effectful_abstract_eval(type_rule)
    primitive.def_impl(impl)
    mlir.register_lowering(primitive, lowering, cacheable=False)
