"""The façade through which rows emit StableHLO: built in place, inside a lowering rule of JAX."""

from collections.abc import Callable, Sequence
from typing import Any

from jaxlib.mlir import ir

from stategrad import jax_compat
from stategrad.collecting import collector_paused
from stategrad.ir import UNKNOWN, Function, Location, Region, Type

from .emitter import Emitter, MLIRRegion, create
from .locations import Locations, derivation
from .templates import Templates

_INLINE_BELOW = 4
_INDEX = Type.parse("i32[]")


class Hlo(Emitter):
    """What rows lower through: single operations, regions of our IR, loops, branches, calls.

    Attributes:
        tokens: the tokens of JAX's ordered effects, as they stand after what was emitted so far. Loops,
            branches and functions take and give them like other values.
    """

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx)
        self.tokens = ctx.tokens_in
        self._locate = Locations(ctx)
        self._templates = Templates(self)

    @property
    def keeps_barriers(self) -> bool:
        """Whether barriers outlast the merging of equal operations: in what XLA does for CPUs they do not."""
        return "cpu" not in jax_compat.lowering_platforms(self.ctx)

    def inline(self, region: Region, args: Sequence[Any]) -> list[Any]:
        """Emits the operations of an effect-free region here; gives the values of its results."""
        env = dict(zip(region.params, args, strict=True))
        outer, locate, lower = self.location, self._locate, self._templates.lower
        for op in region.operations:
            self.location = locate(op)
            found = lower(op, [env[v] for v in op.operands])
            for value, made in zip(op.results, found, strict=True):
                env[value] = made
        self.location = outer
        return [env[v] for v in region.results]

    # ---------------------------------------------------------------------------------- control flow
    def while_loop(
        self,
        init_values: Sequence[Any],
        init_types: Sequence[Type],
        cond: Callable[[list[Any]], Any],
        body: Callable[[list[Any]], Sequence[Any]],
    ) -> list[Any]:
        """`state = init; while cond(state): state = body(state)`; gives the last state."""
        tokens = self._tokens()
        types = [*(t.type for t in tokens), *self.mlir_types(init_types)]
        regions = [
            (types, self._with_tokens(len(tokens), lambda state: [cond(state)], False)),
            (types, self._with_tokens(len(tokens), body)),
        ]
        return self._take_tokens(len(tokens), self.emit("while", [*tokens, *init_values], types, regions))

    def case(
        self,
        index_value_i32: Any,
        result_types: Sequence[Type],
        branches: Sequence[Callable[[], Sequence[Any]]],
    ) -> list[Any]:
        """The results of one branch; the last one where the index is out of range."""
        tokens = self._tokens()
        types = [*(t.type for t in tokens), *self.mlir_types(result_types)]

        def region(branch: Callable[[], Sequence[Any]]) -> MLIRRegion:
            run = self._with_tokens(len(tokens), lambda _: branch())
            return (), lambda _: run(tokens)

        found = self.emit("case", [index_value_i32], types, [region(b) for b in branches])
        return self._take_tokens(len(tokens), found)

    def _with_tokens(
        self, count: int, body: Callable[[list[Any]], Sequence[Any]], returned: bool = True
    ) -> Callable[[list[Any]], list[Any]]:
        """The same body with that many tokens before its arguments and, if `returned`, before its results."""

        def run(args: list[Any]) -> list[Any]:
            found = body(self._take_tokens(count, args))
            return [*self._tokens(), *found] if returned else list(found)

        return run

    def _take_tokens(self, count: int, values: list[Any]) -> list[Any]:
        """Takes the tokens off the front of some values."""
        if count:
            self.tokens = jax_compat.with_tokens(self.tokens, values[:count])
        return values[count:]

    def _tokens(self) -> list[Any]:
        return [token for _, token in self.tokens.items()]

    # ---------------------------------------------------------------------------------- functions
    def call(self, function: Function, args: Sequence[Any]) -> list[Any]:
        """Calls an effect-free function, emitted once a module; a very small one is put here instead."""
        operations = function.body.operations
        if len(operations) < _INLINE_BELOW and not any(op.regions for op in operations):
            return self.inline(function.body, args)
        tokens = self._tokens() if function.body.external else []
        key = (function, len(tokens), jax_compat.lowering_platforms(self.ctx))
        name = self.cache.functions.get(key)
        if name is None:
            name = self.cache.functions[key] = self._define(function, tokens)
        types = [*(t.type for t in tokens), *(self.mlir_type(v.type) for v in function.results)]
        callee = {"callee": ir.FlatSymbolRefAttr.get(name)}
        operands = [*self.ctx.dim_var_values, *tokens, *args]
        found = create("func.call", types, operands, callee, loc=self.location).results
        return self._take_tokens(len(tokens), list(found))

    def _define(self, function: Function, tokens: list[Any]) -> str:
        """Emits a private function; JAX's dimension variables lead its parameters, then come tokens."""
        params, results = (
            [*(t.type for t in tokens), *(self.mlir_type(v.type) for v in values)]
            for values in (function.params, function.results)
        )
        name, block, ctx = jax_compat.private_function(self.ctx, function.name, params, results)
        inner = Hlo(ctx)
        inner.location = self.location
        inner.tokens = self.tokens if tokens else inner.tokens
        with ir.InsertionPoint(block) as inner.place:
            body = inner._with_tokens(len(tokens), lambda args: inner.inline(function.body, args))
            found = body(list(block.arguments)[len(ctx.dim_var_values) :])
            create("func.return", [], found, loc=inner.location)
        return name

    # ---------------------------------------------------------------------------------- foreign operations
    def equation(self, equation: Any, operands: Sequence[Any], location: Location = UNKNOWN) -> list[Any]:
        """Lowers one equation of a jaxpr by JAX's own rule; its ordered effects go through `tokens`."""
        by = derivation(location)
        with self.location:
            found, self.tokens = jax_compat.lower_equation(self.ctx, equation, operands, self.tokens, by)
        return found

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


@collector_paused()
def lower_function(ctx: Any, function: Function, args: Sequence[Any]) -> list[Any]:
    """Emits the body of an effect-free function inside a JAX lowering rule; from the second time on, a call.

    Args:
        ctx: the rule's context; its tokens are set where the program has ordered effects of JAX.
        function: what to emit.
        args: MLIR values of the parameters.
    """
    hlo = Hlo(ctx)
    again = function in hlo.cache.placed
    hlo.cache.placed.add(function)
    found = hlo.call(function, args) if again else hlo.inline(function.body, args)
    if hlo.tokens is not ctx.tokens_in:
        ctx.set_tokens_out(hlo.tokens)
    return found
