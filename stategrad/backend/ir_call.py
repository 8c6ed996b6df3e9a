"""The JAX primitive that applies a program of our IR: compiled by `jax.jit`, fit for every JAX transform."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from stategrad import jax_compat
from stategrad.ir import Function, IRTypeError, walk
from stategrad.ir import reachable as reachable_functions
from stategrad.jax_compat import Primitive
from stategrad.passes import shape_loops_function

from .hlo import lower_function


class Program:
    """An effect-free function as the parameter of `ir_call`. JAX's caches go by its identity.

    Attributes:
        function: the program.
        residuals: what its backward loops may keep, as in the pass `residuals`.
        effects: the effects of JAX (prints, callbacks) in it.
        donatable: whether nothing of Python runs in it, which could fail after its operands were given away.
        self_contained: whether it holds no function of the user's: a callback, a derivative rule.
        derived: programs made from this one, by what was asked for: see `derivatives`.
    """

    __slots__ = (
        "__weakref__",
        "_compiled",
        "_eager",
        "_lowered",
        "_residuals",
        "derived",
        "donatable",
        "effects",
        "function",
        "results",
        "self_contained",
    )

    def __init__(self, function: Function, residuals: int | float | None = None) -> None:
        if function.effects:
            cells = ", ".join(f"${cell.name}" for cell in function.effects)
            raise IRTypeError(f"@{function.name} touches {cells}: run thread-state before compiling it")
        self.function = function
        self.results = [jax_compat.aval_of_type(v.type) for v in function.results]
        self.effects = frozenset(jax_effects(function))
        functions = reachable_functions(function)
        opdefs = {op.name: op.opdef for each in functions for op in walk(each.body)}.values()
        calls_back, holds_function = (
            any(getattr(op, flag, False) for op in opdefs) for flag in ("calls_back", "holds_function")
        )
        self.donatable = not self.effects and not calls_back
        self.self_contained = self.donatable and not holds_function
        self.derived: dict[Any, Any] = {}
        self._residuals = residuals
        self._lowered: Function | None = None
        self._compiled: Callable[..., list[jax.Array]] | None = None
        self._eager: Callable[..., list[jax.Array]] | None = None

    def derive(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make()` gives; made once for each key."""
        found = self.derived.get(key)
        if found is None:
            found = self.derived[key] = make()
        return found

    @property
    def lowered(self) -> Function:
        """The program as it is lowered: nothing will be derived from it any more, so its loops get their last
        shape.
        """
        if self._lowered is None:
            self._lowered = shape_loops_function(self.function, self._residuals)
        return self._lowered

    @property
    def compiled(self) -> Callable[..., list[jax.Array]]:
        """The program behind `jax.jit`."""
        if self._compiled is None:
            self._compiled = jax.jit(_named(self))
        return self._compiled

    @property
    def eager(self) -> Callable[..., list[jax.Array]]:
        """The same again: `compiled` may be under way, when JAX runs what is in it step by step."""
        if self._eager is None:
            self._eager = jax.jit(_named(self))
        return self._eager

    def bind(self, *args: Any) -> list[Any]:
        """Applies the program under whatever JAX trace is current."""
        return ir_call_p.bind(*jax_compat.aligned(args), program=self)

    def __repr__(self) -> str:
        return f"@{self.function.name}"


def jax_effects(function: Function) -> set[Any]:
    """The effects of JAX that the foreign operations of a program have."""
    found: set[Any] = set()
    for each in reachable_functions(function):
        if each.body.external:
            for op in walk(each.body):
                found.update(getattr(op.opdef, "jax_effects", lambda _: ())(op))
    return found


def _named(program: Program) -> Callable[..., list[Any]]:
    def run(*args: Any) -> list[Any]:
        jax_compat.share_context()
        return program.bind(*args)

    run.__name__ = run.__qualname__ = program.function.name
    return run


def _types(*args: Any, program: Program) -> tuple[list[Any], frozenset[Any]]:
    params = program.function.params
    if len(args) != len(params):
        raise IRTypeError(f"{program} takes {len(params)} arguments, not {len(args)}")
    for i, (given, param) in enumerate(zip(args, params, strict=True)):
        if jax_compat.type_of_aval(given) != param.type:
            raise IRTypeError(
                f"argument {i} of {program} is {given}, not {param.type}{_advice(param.type.dtype.name)}"
            )
    return jax_compat.result_types(program.results, args), program.effects


def _advice(name: str) -> str:
    wide = name in ("f64", "i64", "u64", "c128")
    return "; programs of 64 bits need jax.config.update('jax_enable_x64', True)" if wide else ""


def _run(*args: Any, program: Program) -> list[jax.Array]:
    # There is no Python in it to step through, by hand or in search of a NaN: it is compiled all the same.
    with jax.disable_jit(False), jax.debug_nans(False), jax.debug_infs(False):
        return program.eager(*args)


def _lower(ctx: Any, *args: Any, program: Program) -> Sequence[Any]:
    return lower_function(ctx, program.lowered, args)


ir_call_p = Primitive("ir_call")
ir_call_p.multiple_results = True
jax_compat.define_effectful(ir_call_p, _types, _run, _lower)
jax_compat.hold_weakly(Program)


def bind_function(function: Function, *args: Any) -> list[Any]:
    """Applies an effect-free function under whatever JAX trace is current; compiled where there is none.

    Raises:
        IRTypeError: the function touches cells, or an argument has another type than its parameter.
    """
    return Program(function).bind(*args)


def compile_function(function: Function) -> Callable[..., list[jax.Array]]:
    """An effect-free function behind `jax.jit`: takes and gives arrays, compiles on its first call.

    Raises:
        IRTypeError: the function touches cells.
    """
    return Program(function).compiled


def stablehlo_text(function: Function, *, locations: bool = False) -> str:
    """The StableHLO of an effect-free function."""
    types = [jax_compat.aval_of_type(v.type) for v in function.params]
    args = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in types]
    return Program(function).compiled.lower(*args).as_text(debug_info=locations)  # pyright: ignore[reportFunctionMemberAccess]
