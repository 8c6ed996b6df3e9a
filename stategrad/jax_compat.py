"""All contact with JAX's internals, in one place; jax 0.10.2 up to the newest release.

Nothing else in stategrad imports from `jax._src`.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import config, core, dtypes, effects, source_info_util
from jax._src.ad_util import Zero
from jax._src.interpreters import ad, batching, mlir
from jax._src.interpreters import partial_eval as pe
from jax._src.lax import lax as lax_internal
from jax._src.random import prng
from jax.extend.core import Primitive
from jax.extend.mlir import ir as mlir_ir
from jax.extend.mlir.dialects import func as func_dialect

from stategrad.ir import DType, IRTypeError, Type, dtype, dtype_of

# ------------------------------------------------------------------------------------------------ traces
Tracer = core.Tracer


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
    return trace is core.eval_trace


def is_ad_trace(trace: Any) -> bool:
    return isinstance(trace, (ad.JVPTrace, ad.LinearizeTrace))


def is_batch_trace(trace: Any) -> bool:
    return isinstance(trace, batching.BatchTrace)


def is_staging_trace(trace: Any) -> bool:
    return isinstance(trace, pe.DynamicJaxprTrace)


def is_zero_tangent(tangent: Any) -> bool:
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


def leak_checking() -> bool:
    """Whether JAX checks for leaked tracers."""
    return config.check_tracer_leaks.value


_TRACE_CONTEXT = jax.make_user_context(None)


def fresh_context() -> AbstractContextManager[None]:
    """Inside, JAX finds none of the bodies that it traced before: they are traced again."""
    return _TRACE_CONTEXT(object())


# ------------------------------------------------------------------------------------------ state effects
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


def define_effectful(
    primitive: Primitive,
    type_rule: Callable[..., Any],
    impl: Callable[..., Any],
    lowering: Callable[..., Any],
) -> None:
    """Gives a primitive its type rule (returning types and JAX effects), its eager meaning and its lowering."""
    primitive.def_effectful_abstract_eval(type_rule)
    primitive.def_impl(impl)
    mlir.register_lowering(primitive, lowering, cacheable=False)


# ------------------------------------------------------------------------------------------------ weak types
def strong(aval: Any) -> Any:
    """The same type without the weak flag."""
    return aval.strip_weak_type() if hasattr(aval, "strip_weak_type") else aval


def strong_array(leaf: Any) -> Any:
    """A number or array, concrete or traced, as an array of a strong type."""
    array = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    if getattr(array.aval, "weak_type", False):
        array = lax_internal._convert_element_type(array, array.dtype, weak_type=False)
    return array


def adopt_type(leaf: Any, aval: Any) -> Any:
    """A leaf as an array of a strong type; a weak one takes the dtype of `aval` where JAX would promote it to
    that.
    """
    array = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    if getattr(array.aval, "weak_type", False) and dtypes.promote_types(aval.dtype, array.dtype) is not None:
        fits = dtypes.result_type(array, core.ShapedArray((), aval.dtype)) == aval.dtype
        array = lax_internal._convert_element_type(
            array, aval.dtype if fits else array.dtype, weak_type=False
        )
    return array


def is_array_like(leaf: Any) -> bool:
    """Whether JAX takes it for an array: arrays, tracers, numbers, shapes with dtypes; no strings, no
    objects.
    """
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct, bool, int, float, complex)):
        return True
    return (isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind not in "OSUMmV") or hasattr(
        leaf, "__jax_array__"
    )


def config_key() -> Any:
    """The settings of JAX under which a trace was made: another key, another program."""
    return config.trace_context()


def same_type(array: Any, aval: Any) -> bool:
    """Whether an array has this shape and dtype."""
    return array.shape == aval.shape and array.dtype == aval.dtype


# ------------------------------------------------------------------------------------------------ types
_KEY_TYPES = {f"key<{impl.tag}>": prng.KeyTy(impl) for impl in prng.prngs.values()}
_ELEMENT_TYPES: dict[Any, DType] = {}


def type_of_aval(aval: Any) -> Type:
    """Our type of a JAX array type; weak types, shardings and memory spaces are dropped.

    Raises:
        IRTypeError: we have no such type: `float0`, references, tokens, symbolic sizes.
    """
    known = isinstance(aval, core.ShapedArray)  # a reference has a dtype and a shape too
    element = (_ELEMENT_TYPES.get(aval.dtype) if known else None) or _element_type(aval)
    for size in aval.shape:
        if type(size) is not int:
            raise IRTypeError(f"{aval} has the symbolic size {size}; stategrad needs sizes that are numbers")
    return Type(element, aval.shape)


def _element_type(aval: Any) -> DType:
    found = getattr(aval, "dtype", None)
    if found is None or not isinstance(aval, core.ShapedArray):
        raise IRTypeError(f"{aval} is not the type of an array")
    if isinstance(found, prng.KeyTy):
        if _KEY_TYPES.setdefault(found.name, found) != found:
            raise IRTypeError(f"there are two PRNG implementations with the tag of {found.name}")
        element = dtype(found.name)
    elif dtypes.issubdtype(found, dtypes.extended):
        raise IRTypeError(f"{aval} has an element type that stategrad does not know")
    else:
        element = dtype_of(found)
    _ELEMENT_TYPES[found] = element
    return element


def jax_dtype(element: DType) -> Any:
    """The dtype of JAX arrays with this element type.

    Raises:
        IRTypeError: a PRNG implementation of that name is not registered with JAX.
    """
    if element.numpy is not None:
        return element.numpy
    found = _KEY_TYPES.get(element.name)
    if found is None:
        raise IRTypeError(f"JAX has no PRNG implementation for {element}; it has {', '.join(_KEY_TYPES)}")
    return found


def aval_of_type(of: Type) -> core.ShapedArray:
    """The JAX array type, strong and without a sharding, of one of ours."""
    return core.ShapedArray(of.shape, jax_dtype(of.dtype))


def physical_type(of: Type) -> Type:
    """The type that a value has in StableHLO: PRNG keys are rows of unsigned integers, all else is itself."""
    if of.dtype.kind != "k":
        return of
    return type_of_aval(core.physical_aval(aval_of_type(of)))


# ------------------------------------------------------------------------------------------------ lowering
Array = jax.Array


def module_store(ctx: Any) -> dict[Any, Any]:
    """A dictionary that lives as long as the MLIR module that a lowering rule writes to."""
    return ctx.module_context.cached_primitive_lowerings


def lowering_platforms(ctx: Any) -> tuple[str, ...]:
    """The platforms that a lowering rule emits for."""
    return tuple(ctx.platforms or ctx.module_context.platforms)


def name_prefix(ctx: Any) -> str:
    """What JAX calls the program around a lowering rule, such as `jit(f)/`."""
    stack = str(ctx.name_stack)
    return f"{stack}/" if stack else ""


def canonical_file(ctx: Any, file: str) -> str:
    """A file name as the user wants to see it in locations (`jax_hlo_source_file_canonicalization_regex`)."""
    return mlir.get_canonical_source_file(file, ctx.module_context.traceback_caches)


def mlir_type(ctx: Any, of: Type) -> Any:
    """The MLIR tensor type of values of a type."""
    return mlir.aval_to_ir_type(ctx.module_context, aval_of_type(of))


def mlir_constant(ctx: Any, value: Any, of: Type) -> Any:
    """An array of JAX or NumPy as an MLIR constant, by JAX's own rule."""
    return mlir.ir_constant(value, const_lowering=ctx.const_lowering, aval=aval_of_type(of))


def private_function(ctx: Any, name: str, params: list[Any], results: list[Any]) -> tuple[str, Any, Any]:
    """Adds a function to the module: its name there, its empty block, and the context to fill it with.

    JAX's dimension variables (platform index, symbolic sizes) lead the parameters: lowering rules need them.
    """
    sizes = [v.type for v in ctx.dim_var_values]
    made = func_dialect.FuncOp(name, ([*sizes, *params], results), ip=ctx.module_context.ip)
    made.attributes["sym_visibility"] = mlir_ir.StringAttr.get("private")
    unique = ctx.module_context.symbol_table.insert(made)
    block = made.add_entry_block()
    inner = ctx.replace(
        name_stack=source_info_util.new_name_stack(),
        const_lowering={},
        dim_var_values=list(block.arguments)[: len(sizes)],
        tokens_in=mlir.TokenSet(),
        tokens_out=None,
    )
    return unique.value, block, inner


def with_tokens(tokens: Any, values: Sequence[Any]) -> Any:
    """The same effects with new tokens."""
    return mlir.TokenSet(dict(zip((effect for effect, _ in tokens.items()), values, strict=True)))


def lower_equation(
    ctx: Any, equation: Any, operands: Sequence[Any], tokens: Any, name: str
) -> tuple[list[Any], Any]:
    """Lowers one equation of a jaxpr by JAX's own rules; gives its results and the tokens after it.

    A `name` that is not empty joins those that JAX writes into the locations.
    """
    jaxpr = core.Jaxpr([], equation.invars, equation.outvars, [equation], equation.effects, _debug_info())
    found, tokens = mlir.jaxpr_subcomp(
        ctx.module_context,
        jaxpr,
        ctx.name_stack.extend(name) if name else ctx.name_stack,
        tokens,
        (),
        *operands,
        dim_var_values=ctx.dim_var_values,
        const_lowering=ctx.const_lowering,
        outer_traceback=ctx.traceback,
    )
    return list(found), tokens


@functools.cache
def _debug_info() -> Any:
    closed = jax.make_jaxpr(lambda: ())()
    return getattr(closed, "jaxpr", closed).debug_info.with_unknown_names()


def aligned(operands: Sequence[Any]) -> Sequence[Any]:
    """Inside `jax.shard_map`, operands that vary over the same mesh axes, as JAX demands of its own
    operations.
    """
    return core.auto_insert_reshard(*operands)


def result_types(avals: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
    """The types of a program's results, given those of its operands: they vary over the same mesh axes."""
    varying = next((a for a in operands if a.mat.varying), None)
    if varying is None:
        return list(avals)
    where = jax.sharding.NamedSharding(varying.sharding.mesh, jax.sharding.PartitionSpec())
    return [a.update(sharding=where, manual_axis_type=varying.mat) for a in avals]


# ---------------------------------------------------------------------------------------- programs of JAX
Literal = core.Literal
ClosedOver = ad.CustomVJPException
PLAIN_CONTEXT = core.JaxprEqnContext()


def nested_programs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among the parameters of an equation."""
    return core.jaxprs_in_params(params)


def outside_effects(equation: Any) -> frozenset[Any]:
    """The effects of an equation that are JAX's and not ours: callbacks, prints, …"""
    ours = (_StateRead, _StateWrite, core.NamedAxisEffect)
    return frozenset(e for e in equation.effects if not isinstance(e, ours))


def variable(tracer: Any) -> Any:
    """The variable that a tracer became in the jaxpr that was traced, or None."""
    return getattr(tracer, "val", None)


def touches_state(program: Any) -> bool:
    """Whether an equation or a jaxpr reads or writes States."""
    return any(isinstance(e, (_StateRead, _StateWrite)) for e in program.effects)


def runs_elsewhere(context: Any) -> bool:
    """Whether the context of an equation says more than the array program: `compute_on`, XLA metadata."""
    return context is not PLAIN_CONTEXT and (context.compute_type is not None or bool(context.xla_metadata))


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


# ------------------------------------------------------------------------------------------------ transforms
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
    """Whether a tangent that JAX gives to a rule can be nonzero: neither symbolically zero nor of an integer."""
    return type(tangent) is not Zero and core.typeof(tangent).dtype != dtypes.float0


def zero_tangent(of: Type) -> Any:
    """The symbolic zero tangent of a value of that type."""
    return Zero(aval_of_type(of).to_tangent_aval())


def is_linear(operand: Any) -> bool:
    """Whether JAX asks a transpose rule for the cotangent of this operand."""
    return ad.is_undefined_primal(operand)
