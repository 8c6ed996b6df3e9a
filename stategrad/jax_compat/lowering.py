"""Inside a lowering rule of JAX: types, constants, private functions, equations of JAX itself."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
from jax._src import core, source_info_util
from jax._src.interpreters import mlir
from jaxlib.mlir import ir as mlir_ir
from jaxlib.mlir.dialects import func as func_dialect

from stategrad.ir import Type

from .contexts import note_constant
from .types import aval_of_type

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
    note_constant(value.nbytes)
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
