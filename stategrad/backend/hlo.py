"""The façade through which rows emit StableHLO: built in place, inside a lowering rule of JAX."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax.extend.mlir import ir

from stategrad import jax_compat
from stategrad.ir import Function, Region, Type

from .locations import Locations

_create = ir.Operation.create
_MLIRRegion = tuple[Sequence[Type], Callable[[list[Any]], Sequence[Any]]]
_INLINE_BELOW = 4
_COMPARED_BYTES = 512


@dataclass
class ModuleCache:
    """What is made once for an MLIR module: types, attributes, and the functions that calls share."""

    types: dict[Type, Any] = field(default_factory=dict)
    attributes: dict[Any, Any] = field(default_factory=dict)
    functions: dict[Any, str] = field(default_factory=dict)

    @staticmethod
    def of(ctx: Any) -> "ModuleCache":
        """The one that belongs to the module that is being lowered."""
        return jax_compat.module_store(ctx).setdefault(ModuleCache, ModuleCache())


class Hlo:
    """Emits operations at the current insertion point of a JAX lowering rule.

    Rows give types as our `Type`s and get MLIR values. PRNG keys are arrays of unsigned integers here.

    Attributes:
        ctx: JAX's context of the lowering rule.
        tokens: the tokens of JAX's ordered effects, as they stand after what was emitted so far.
    """

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.tokens = ctx.tokens_in
        self._cache = ModuleCache.of(ctx)
        self._locate = Locations(ctx)
        self._location = ir.Location.current
        self._constants: dict[Any, Any] = {}

    # ---------------------------------------------------------------------------------- operations
    def op(
        self,
        name: str,
        operands: Sequence[Any],
        result_types: Sequence[Type],
        regions: Sequence[_MLIRRegion] = (),
        **attributes: Any,
    ) -> list[Any]:
        """An operation; a `name` without a dialect is one of StableHLO.

        Attributes: a bool, an int (64 bits), text as MLIR writes an attribute, a sequence of ints or of bools
        (dense arrays), an integer NumPy array (a dense tensor of 64 bits); None leaves the attribute out.
        """
        return self._emit(name, operands, [self.mlir_type(t) for t in result_types], regions, attributes)

    def _emit(
        self,
        name: str,
        operands: Sequence[Any],
        types: Sequence[Any],
        regions: Sequence[_MLIRRegion] = (),
        attributes: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        full = name if "." in name else "stablehlo." + name
        made = _create(
            full,
            types,
            operands,
            self._attributes(attributes) if attributes else None,
            None,
            len(regions),
            self._location,
        )
        for region, (params, body) in zip(made.regions, regions, strict=True) if regions else ():
            self._fill(region.blocks.append(*self._mlir_types(params)), body)
        return [made.result] if len(types) == 1 else list(made.results)

    def mlir_type(self, of: Type) -> Any:
        """The tensor type of values of one of our types."""
        found = self._cache.types.get(of)
        if found is None:
            found = self._cache.types[of] = jax_compat.mlir_type(self.ctx, of)
        return found

    def _mlir_types(self, types: Iterable[Any]) -> list[Any]:
        return [self.mlir_type(t) if isinstance(t, Type) else t for t in types]

    def _attributes(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._attribute(value) for name, value in given.items() if value is not None}

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, (list, tuple, range)):
            key = (bool(value) and isinstance(value[0], bool), tuple(value))
        elif isinstance(value, np.ndarray):
            return _dense_tensor(value)
        else:
            key = (type(value), value)
        found = self._cache.attributes.get(key)
        if found is None:
            found = self._cache.attributes[key] = _attribute(value)
        return found

    # ---------------------------------------------------------------------------------- constants
    def constant(self, value: Any, type: Type) -> Any:
        """A constant; a scalar fills the whole shape. Equal ones in a block are one."""
        if isinstance(value, jax_compat.Array):
            return self._array(value, type)
        physical = jax_compat.physical_type(type)
        array = _converted(value, physical)
        if array.size > 1 and array.nbytes > _COMPARED_BYTES:
            return self._array(array, physical)
        key = (physical, array.shape, array.tobytes())
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self._dense(array, physical)
        return found

    def _dense(self, array: np.ndarray, type: Type) -> Any:
        to = self.mlir_type(type)
        if array.size <= 1:
            array = array.reshape(()) if array.size else np.zeros((), array.dtype)
        array = np.ascontiguousarray(array).reshape(array.shape)
        dense = ir.DenseElementsAttr.get(array, type=to.element_type, shape=type.shape)
        return _create("stablehlo.constant", [to], (), {"value": dense}, loc=self._location).result

    def _array(self, value: Any, type: Type) -> Any:
        key = (id(value), type)
        found = self._constants.get(key)
        if found is None:
            with self._location:
                made = jax_compat.mlir_constant(self.ctx, value, type.with_shape(value.shape))
            if value.shape != type.shape:
                made = self._filled(made, type)
            found = self._constants[key] = (made, value)  # holds the array, so that its id stays its own
        return found[0]

    def _filled(self, scalar: Any, type: Type) -> Any:
        rank = jax_compat.physical_type(type).rank
        return self.op("broadcast_in_dim", [scalar], [type], broadcast_dimensions=range(type.rank, rank))[0]

    # ---------------------------------------------------------------------------------- regions
    def region(self, param_types: Sequence[Type], body: Callable[[list[Any]], Sequence[Any]]) -> _MLIRRegion:
        """A region for `op`: `body` gets the parameters and gives what the region returns."""
        return (param_types, body)

    def inline(self, region: Region, args: Sequence[Any]) -> list[Any]:
        """Emits the operations of an effect-free region here; gives the values of its results."""
        env = dict(zip(region.params, args, strict=True))
        outer = self._location
        for op in region.operations:
            self._location = self._locate(op)
            found = op.opdef.lower_op(self, op, [env[v] for v in op.operands])
            for value, lowered in zip(op.results, found, strict=True):
                env[value] = lowered
        self._location = outer
        return [env[v] for v in region.results]

    def _fill(self, block: Any, body: Callable[[list[Any]], Sequence[Any]]) -> None:
        """Emits `body` into a block; it returns what `body` gives."""
        outer, self._constants = self._constants, {}
        with ir.InsertionPoint(block):
            found = body(list(block.arguments))
            _create("stablehlo.return", [], list(found), loc=self._location)
        self._constants = outer

    # ---------------------------------------------------------------------------------- control flow
    def while_loop(
        self,
        init_values: Sequence[Any],
        init_types: Sequence[Type],
        cond: Callable[[list[Any]], Any],
        body: Callable[[list[Any]], Sequence[Any]],
    ) -> list[Any]:
        """`state = init; while cond(state): state = body(state)`; gives the last state."""
        tokens, types = self._tokens(), self._mlir_types(init_types)
        k = len(tokens)

        def proceed(state: list[Any]) -> list[Any]:
            self._set_tokens(state[:k])
            return [cond(state[k:])]

        def step(state: list[Any]) -> list[Any]:
            self._set_tokens(state[:k])
            found = body(state[k:])
            return [*self._tokens(), *found]

        types = [*(t.type for t in tokens), *types]
        results = self._emit("while", [*tokens, *init_values], types, [(types, proceed), (types, step)])
        self._set_tokens(results[:k])
        return results[k:]

    def case(
        self,
        index_value_i32: Any,
        result_types: Sequence[Type],
        branches: Sequence[Callable[[], Sequence[Any]]],
    ) -> list[Any]:
        """The results of one branch; the last one where the index is out of range."""
        tokens = self._tokens()
        k = len(tokens)

        def branch(thunk: Callable[[], Sequence[Any]]) -> _MLIRRegion:
            def body(_: list[Any]) -> list[Any]:
                self._set_tokens(tokens)
                found = thunk()
                return [*self._tokens(), *found]

            return ((), body)

        types = [*(t.type for t in tokens), *self._mlir_types(result_types)]
        results = self._emit("case", [index_value_i32], types, [branch(b) for b in branches])
        self._set_tokens(results[:k])
        return results[k:]

    def call(self, function: Function, args: Sequence[Any]) -> list[Any]:
        """Calls an effect-free function, emitted once a module; a very small one is put here instead."""
        operations = function.body.operations
        if len(operations) < _INLINE_BELOW and not any(op.regions for op in operations):
            return self.inline(function.body, args)
        tokens = self._tokens() if function.body.external else []
        key = (function, len(tokens), jax_compat.lowering_platforms(self.ctx))
        name = self._cache.functions.get(key)
        if name is None:
            name = self._cache.functions[key] = self._define(function, tokens)
        types = [*(t.type for t in tokens), *(self.mlir_type(v.type) for v in function.results)]
        callee = {"callee": ir.FlatSymbolRefAttr.get(name)}
        operands = [*self.ctx.dim_var_values, *tokens, *args]
        results = list(_create("func.call", types, operands, callee, loc=self._location).results)
        if tokens:
            self._set_tokens(results[: len(tokens)])
        return results[len(tokens) :]

    def _define(self, function: Function, tokens: list[Any]) -> str:
        """Emits a private function; JAX's dimension variables lead its parameters, then come tokens."""
        params = [*(t.type for t in tokens), *(self.mlir_type(v.type) for v in function.params)]
        results = [*(t.type for t in tokens), *(self.mlir_type(v.type) for v in function.results)]
        name, block, ctx = jax_compat.private_function(self.ctx, function.name, params, results)
        inner = Hlo(ctx)
        inner._location = self._location
        with ir.InsertionPoint(block):
            args = list(block.arguments)[len(ctx.dim_var_values) :]
            if tokens:
                inner.tokens = self.tokens
                inner._set_tokens(args[: len(tokens)])
            found = inner.inline(function.body, args[len(tokens) :])
            _create("func.return", [], [*inner._tokens()[: len(tokens)], *found], loc=self._location)
        return name

    # ---------------------------------------------------------------------------------- foreign operations
    def equation(self, equation: Any, operands: Sequence[Any]) -> list[Any]:
        """Lowers one equation of a jaxpr by JAX's own rule; its ordered effects go through `tokens`."""
        with self._location:
            found, self.tokens = jax_compat.lower_equation(self.ctx, equation, operands, self.tokens)
        return found

    def _tokens(self) -> list[Any]:
        return [token for _, token in self.tokens.items()]

    def _set_tokens(self, values: Sequence[Any]) -> None:
        if values:
            self.tokens = jax_compat.with_tokens(self.tokens, values)

    # ---------------------------------------------------------------------------------- slices of stacks
    def index(self, stack: Any, type: Type, i: Any) -> Any:
        """Element `i` (an i32 value) of a stack of that type along its leading axis."""
        physical = jax_compat.physical_type(type)
        one = physical.with_shape((1, *physical.shape[1:]))
        starts = self._starts(i, physical.rank)
        (part,) = self.op("dynamic_slice", [stack, *starts], [one], slice_sizes=one.shape)
        return self.op("reshape", [part], [physical.with_shape(physical.shape[1:])])[0]

    def update(self, stack: Any, part: Any, type: Type, i: Any) -> Any:
        """The stack of that type with `part` as its element `i` (an i32 value) along the leading axis."""
        physical = jax_compat.physical_type(type)
        (slab,) = self.op("reshape", [part], [physical.with_shape((1, *physical.shape[1:]))])
        starts = self._starts(i, physical.rank)
        return self.op("dynamic_update_slice", [stack, slab, *starts], [type])[0]

    def _starts(self, i: Any, rank: int) -> list[Any]:
        return [i, *([self.constant(0, _INDEX)] * (rank - 1))]


_INDEX = Type.parse("i32[]")


def _attribute(value: Any) -> Any:
    if isinstance(value, bool):
        return ir.BoolAttr.get(value)
    if isinstance(value, (int, np.integer)):
        return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), int(value))
    if isinstance(value, str):
        return ir.Attribute.parse(value)
    if value and isinstance(value[0], bool):
        return ir.DenseBoolArrayAttr.get(list(value))
    return ir.DenseI64ArrayAttr.get(list(value))


def _converted(value: Any, type: Type) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype != type.dtype.numpy:
        with np.errstate(all="ignore"):
            array = array.astype(type.dtype.numpy)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return array


def _dense_tensor(value: np.ndarray) -> Any:
    wide = np.ascontiguousarray(value, np.int64)
    return ir.DenseElementsAttr.get(wide, type=ir.IntegerType.get_signless(64), shape=wide.shape)


def lower_function(ctx: Any, function: Function, args: Sequence[Any]) -> list[Any]:
    """Emits the body of an effect-free function inside a JAX lowering rule.

    Args:
        ctx: the rule's context; its tokens are set where the program has ordered effects of JAX.
        args: MLIR values of the parameters.
    """
    hlo = Hlo(ctx)
    found = hlo.inline(function.body, args)
    if hlo.tokens is not ctx.tokens_in:
        ctx.set_tokens_out(hlo.tokens)
    return found
