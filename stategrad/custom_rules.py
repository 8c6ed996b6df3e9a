"""Functions with `jax.custom_jvp` or `jax.custom_vjp` that read States, in the body or in the rules.

JAX's rules know no States, so what is read becomes an argument: at the call, where the States have the values that
the rules are to see. The function is replaced by one that has the same rules, made of the traced ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from stategrad.ir import Cell, DerivativeError, Function, Type
from stategrad.passes import thread_function

from . import jax_compat as compat
from .backend import bind_function
from .errors import StateError
from .import_functions import is_users
from .traced_names import function_name
from .traced_programs import bind, open_program

Import = Callable[[Any, str, Callable[[dict[str, Any], Type], Cell]], Function]


@dataclass(frozen=True)
class Read:
    """A leaf of a State that a custom call reads. `inside`: by the function itself, not only by its rules."""

    params: dict[str, Any]
    type: Type
    inside: bool

    @property
    def key(self) -> tuple[Any, ...]:
        return self.params["cell"], self.params["leaf"]


def states_read(equation: Any) -> list[Read]:
    """What a custom call and its rules read.

    Raises:
        StateError: they write to a State.
    """
    body = equation.params["call_jaxpr"]
    reads = {r.key: r for r in _reads(body, True)} if compat.touches_state(equation) else {}
    if is_users(open_program(body)[0]):
        for read in _reads(_rules(equation), False):
            reads.setdefault(read.key, read)
    return list(reads.values())


def _rules(equation: Any) -> Any:
    """A program that runs the rules; an empty one where they fail, which will be seen when they are needed."""
    call = _Call(equation, (), None)
    avals = [v.aval for v in equation.invars]
    active = [_inexact(a) for a in avals]
    try:
        return call.trace(active) if call.is_jvp else call.trace_pull()
    except Exception:
        return jax.make_jaxpr(lambda: ())()


def _reads(program: Any, inside: bool) -> Iterator[Read]:
    for equation in open_program(program)[0].eqns:
        if equation.primitive.name == "state_read":
            yield Read(equation.params, compat.type_of_aval(equation.outvars[0].aval), inside)
        elif equation.primitive.name == "state_write":
            name = equation.params["cell"].name
            raise StateError(
                f"the State {name!r} is written inside a function with jax.custom_jvp or jax.custom_vjp, or in one "
                "of its rules; return the value and write it outside"
            )
        for inner in compat.nested_programs(equation.params):
            yield from _reads(inner, inside)


def closed(equation: Any, reads: Sequence[Read], import_program: Import) -> Callable[..., list[Any]]:
    """The function of a custom call with what is read as leading arguments, and with its rules."""
    call = _Call(equation, reads, import_program)
    return call.with_jvp() if call.is_jvp else call.with_vjp()


class _Call:
    """One custom call."""

    def __init__(self, equation: Any, reads: Sequence[Read], import_program: Import | None) -> None:
        self.params, self.context, self.primitive = equation.params, equation.ctx, equation.primitive
        self.is_jvp = equation.primitive.name == "custom_jvp_call"
        self.avals = [compat.strong(v.aval) for v in equation.invars]
        self.results = [compat.strong(v.aval) for v in equation.outvars]
        self.reads = reads
        self._import = import_program
        self.name = function_name(open_program(equation.params["call_jaxpr"])[0])

    # ------------------------------------------------------------------ the function and its rules, with States
    def apply(self, *operands: Any) -> list[Any]:
        return bind(self.primitive, self.params, self.context, operands)

    def trace(self, active: Sequence[bool]) -> Any:
        """Results and tangents, from operands and the tangents of active ones. Zero tangents are filled in."""

        def rule(*values: Any) -> list[Any]:
            n = len(self.avals)
            given = iter(values[n:])
            pairs = compat.push_forward(self.apply, values[:n], [next(given) if a else None for a in active])
            tangents = [jnp.zeros_like(x) if t is None else t for x, t in pairs if _inexact(x)]
            return [*(x for x, _ in pairs), *tangents]

        seeds = [a for a, flag in zip(self.avals, active, strict=True) if flag]
        return jax.make_jaxpr(rule)(*self.avals, *seeds)

    def trace_pull(self) -> Any:
        """Cotangents of the operands that can have one, from all operands and the cotangents of such results."""
        free = [_inexact(a) for a in self.avals]

        def forward(values: Sequence[Any], *floats: Any) -> list[Any]:
            each = iter(floats)
            found = self.apply(*(next(each) if flag else x for flag, x in zip(free, values, strict=True)))
            return [x for x in found if _inexact(x)]

        def rule(*values: Any) -> Sequence[Any]:
            operands, seeds = values[: len(free)], values[len(free) :]
            floats = [x for x, flag in zip(operands, free, strict=True) if flag]
            _, pull = jax.vjp(lambda *floats: forward(operands, *floats), *floats)
            return pull(list(seeds))

        return jax.make_jaxpr(rule)(*self.avals, *(a for a in self.results if _inexact(a)))

    # ------------------------------------------------------------------ the same without States
    def pure(self, program: Any) -> Callable[..., list[Any]]:
        """A traced program as a function of what is read and its own operands."""
        cells = {r.key: Cell(r.params["cell"].name, r.type) for r in self.reads}
        order = list(cells.values())

        def cell_of(params: dict[str, Any], type: Type) -> Cell:
            return cells[params["cell"], params["leaf"]]

        assert self._import is not None
        threaded = thread_function(self._import(program, self.name, cell_of))
        wanted = [order.index(c) for c in threaded.inputs]
        n = len(order)
        return lambda *values: bind_function(threaded.function, *(values[i] for i in wanted), *values[n:])

    def body(self) -> Callable[..., list[Any]]:
        run = self.pure(self.params["call_jaxpr"])

        def function(*values: Any) -> list[Any]:
            return run(*values)

        function.__name__ = function.__qualname__ = self.name
        return function

    def with_jvp(self) -> Callable[..., list[Any]]:
        n, ruled = len(self.reads), jax.custom_jvp(self.body())

        def rule(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            active = [not isinstance(t, SymbolicZero) for t in tangents]
            self._refuse(active[:n])
            push = self.pure(self.trace(active[n:]))
            found = push(*primals, *(t for t, flag in zip(tangents[n:], active[n:], strict=True) if flag))
            results, rest = found[: len(self.results)], iter(found[len(self.results) :])
            return results, [
                next(rest) if _inexact(x) else np.zeros(x.shape, jax.dtypes.float0) for x in results
            ]

        ruled.defjvp(rule, symbolic_zeros=True)
        return ruled

    def with_vjp(self) -> Callable[..., list[Any]]:
        n, function = len(self.reads), self.body()
        ruled = jax.custom_vjp(function)

        def forward(*primals: Any) -> tuple[list[Any], list[Any]]:
            self._refuse([p.perturbed for p in primals[:n]])
            values = [p.value for p in primals]
            return function(*values), values

        def backward(values: list[Any], cotangents: Sequence[Any]) -> tuple[Any, ...]:
            seeds = [_filled(c, a) for c, a in zip(cotangents, self.results, strict=True) if _inexact(a)]
            found = iter(self.pure(self.trace_pull())(*values, *seeds))
            return (*[None] * n, *(next(found) if _inexact(a) else None for a in self.avals))

        ruled.defvjp(forward, backward, symbolic_zeros=True)
        return ruled

    def _refuse(self, active: Sequence[bool]) -> None:
        for read, flag in zip(self.reads, active, strict=True):
            if flag and read.inside:
                name = read.params["cell"].name
                raise DerivativeError(
                    f"the State {name!r} is differentiated, and read inside {self.name}, whose derivative rule knows "
                    "only its arguments; pass the State's value to it as an argument"
                )


def _inexact(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _filled(cotangent: Any, aval: Any) -> Any:
    return jnp.zeros(aval.shape, aval.dtype) if isinstance(cotangent, SymbolicZero) else cotangent
