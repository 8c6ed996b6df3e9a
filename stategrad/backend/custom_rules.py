"""Functions with `jax.custom_jvp` or `jax.custom_vjp` that read States, and rules that do, or that close over
values of the traced function.

JAX's rules know nothing but arguments. So these values become arguments, at the call, where the States have
the values that the rules are to see. A function whose rules are made of traced ones takes the place of it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from stategrad import jax_compat as compat
from stategrad.errors import StateError
from stategrad.import_equations import Importer
from stategrad.import_functions import is_users
from stategrad.import_structured import register_structured
from stategrad.ir import Cell, DerivativeError, Function, Type, Value
from stategrad.ir.record import record
from stategrad.passes import thread_function
from stategrad.traced_names import function_name
from stategrad.traced_programs import bind, open_program

from .ir_call import bind_function

Flat = Callable[..., list[Any]]
Import = Callable[[Any, str, Callable[[dict[str, Any], Type], Cell], Sequence[Any]], Function]


@record
class Read:
    """A leaf of a State that a custom call reads. `inside`: by the function itself, not only by its rules."""

    params: dict[str, Any]
    type: Type
    inside: bool

    @property
    def name(self) -> str:
        return self.params["cell"].name

    @property
    def key(self) -> tuple[Any, ...]:
        return self.params["cell"], self.params["leaf"]


def surroundings(equation: Any, rules: bool) -> tuple[list[Read], list[Any]]:
    """What a custom call reads, and, with `rules`, what its rules read, and the tracers that they close over.

    Raises:
        StateError: they write to a State.
    """
    body = equation.params["call_jaxpr"]
    reads = {r.key: r for r in _reads(body, True)} if compat.touches_state(equation) else {}
    if not rules or not is_users(open_program(body)[0]):
        return list(reads.values()), []
    program = _run_of_rules(equation)
    for read in _reads(program, False):
        reads.setdefault(read.key, read)
    return list(reads.values()), [c for c in open_program(program)[1] if isinstance(c, compat.Tracer)]


def _run_of_rules(equation: Any) -> Any:
    """A program that runs the rules; an empty one where they fail, which is told when they are needed."""
    call = CustomCall.of(equation)
    try:
        return call.tangents([_inexact(a) for a in call.avals]) if call.has_jvp else call.cotangents()
    except Exception:
        return jax.make_jaxpr(lambda: ())()


def _reads(program: Any, inside: bool) -> Iterator[Read]:
    for equation in open_program(program)[0].eqns:
        if equation.primitive.name == "state_read":
            yield Read(equation.params, compat.type_of_aval(equation.outvars[0].aval), inside)
        elif equation.primitive.name == "state_write":
            name = equation.params["cell"].name
            raise StateError(
                f"the State {name!r} is written inside a function with jax.custom_jvp or jax.custom_vjp, or "
                "inside one of its rules; return the value and write it outside"
            )
        for inner in compat.nested_programs(equation.params):
            yield from _reads(inner, inside)


# ----------------------------------------------------------------------------- import
def _custom(at: Importer, equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
    reads, tracers = surroundings(equation, at.imports.rules)
    near = [(t, v) for t in tracers if (v := at.value_of(t)) is not None]
    if not reads and not near:
        return at.foreign(equation, operands)
    cells = [at.imports.cell_of(r.params, r.type) for r in reads]
    values = [at.b.read(cell=c) for c in cells]
    function = closed(equation, reads, [t for t, _ in near], at.imports.effectful)
    return at.apply(function, [*values, *(v for _, v in near), *operands])


register_structured("custom_jvp_call", _custom)
register_structured("custom_vjp_call", _custom)


# ----------------------------------------------------------------------------- function and rules, traced
@record
class CustomCall:
    """One call of a function with custom rules, as JAX traced it."""

    primitive: Any
    params: dict[str, Any]
    context: Any
    avals: list[Any]
    results: list[Any]

    @staticmethod
    def of(equation: Any) -> "CustomCall":
        avals, results = ([compat.strong(v.aval) for v in vs] for vs in (equation.invars, equation.outvars))
        return CustomCall(equation.primitive, equation.params, equation.ctx, avals, results)

    @property
    def has_jvp(self) -> bool:
        return self.primitive.name == "custom_jvp_call"

    def apply(self, *operands: Any) -> list[Any]:
        return bind(self.primitive, self.params, self.context, operands)

    def tangents(self, active: Sequence[bool]) -> Any:
        """Traces results and their tangents, from operands and the tangents of active ones."""
        n = len(self.avals)

        def rule(*values: Any) -> list[Any]:
            given = iter(values[n:])
            pairs = compat.push_forward(self.apply, values[:n], [next(given) if a else None for a in active])
            return [*(x for x, _ in pairs), *(_known(t, x) for x, t in pairs if _inexact(x))]

        seeds = [a for a, flag in zip(self.avals, active, strict=True) if flag]
        return jax.make_jaxpr(rule)(*self.avals, *seeds)

    def ruled_results(self, active: Sequence[bool]) -> Any:
        """Traces the results as the rule gives them, from operands: they do not depend on tangents."""

        def rule(*values: Any) -> list[Any]:
            zeros = [_known(None, x) if flag else None for flag, x in zip(active, values, strict=True)]
            return [x for x, _ in compat.push_forward(self.apply, values, zeros)]

        return jax.make_jaxpr(rule)(*self.avals)

    def cotangents(self) -> Any:
        """Traces the cotangents of real operands, from operands and the cotangents of real results."""
        free = [_inexact(a) for a in self.avals]

        def rule(*values: Any) -> Sequence[Any]:
            operands, seeds = values[: len(free)], values[len(free) :]

            def forward(*floats: Any) -> list[Any]:
                each = iter(floats)
                found = self.apply(
                    *(next(each) if flag else x for flag, x in zip(free, operands, strict=True))
                )
                return [x for x in found if _inexact(x)]

            _, pull = jax.vjp(forward, *(x for x, flag in zip(operands, free, strict=True) if flag))
            return pull(list(seeds))

        return jax.make_jaxpr(rule)(*self.avals, *(a for a in self.results if _inexact(a)))


# ----------------------------------------------------------------------------- the same without surroundings
def closed(equation: Any, reads: Sequence[Read], tracers: Sequence[Any], import_program: Import) -> Flat:
    """The function of a custom call, and its rules; what they read and close over are leading arguments."""
    made = _Closed(CustomCall.of(equation), reads, tracers, import_program)
    return made.with_jvp() if made.call.has_jvp else made.with_vjp()


@record
class _Closed:
    call: CustomCall
    reads: Sequence[Read]
    tracers: Sequence[Any]
    import_program: Import

    def pure(self, program: Any) -> Flat:
        """A traced program as a function of what is read, what is closed over, and its own operands."""
        cells = {r.key: Cell(r.name, r.type) for r in self.reads}

        def cell_of(params: dict[str, Any], type: Type) -> Cell:
            return cells[params["cell"], params["leaf"]]

        name = function_name(open_program(program)[0])
        threaded = thread_function(self.import_program(program, name, cell_of, self.tracers))
        order = list(cells.values())
        used, n = [order.index(c) for c in threaded.inputs], len(order)
        return lambda *values: bind_function(threaded.function, *(values[i] for i in used), *values[n:])

    def body(self) -> Flat:
        program = self.call.params["call_jaxpr"]
        run = self.pure(program)
        run.__name__ = run.__qualname__ = function_name(open_program(program)[0])
        return run

    def with_jvp(self) -> Flat:
        n, call = len(self.reads) + len(self.tracers), self.call
        ruled = jax.custom_jvp(self.body())

        def rule(primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            active = [not isinstance(t, SymbolicZero) for t in tangents]
            self._refuse(active[:n])
            seeds = [t for t, flag in zip(tangents[n:], active[n:], strict=True) if flag]
            # Apart, so that JAX knows the results of a linearized call without its tangents.
            results = self.pure(call.ruled_results(active[n:]))(*primals)
            rest = iter(self.pure(call.tangents(active[n:]))(*primals, *seeds)[len(results) :])
            return results, [next(rest) if _inexact(x) else _no_tangent(x) for x in results]

        ruled.defjvp(rule, symbolic_zeros=True)
        return ruled

    def with_vjp(self) -> Flat:
        n, call, body = len(self.reads) + len(self.tracers), self.call, self.body()
        ruled = jax.custom_vjp(body)

        def forward(*primals: Any) -> tuple[list[Any], list[Any]]:
            self._refuse([p.perturbed for p in primals[:n]])
            values = [p.value for p in primals]
            return body(*values), values

        def backward(values: list[Any], cotangents: Sequence[Any]) -> tuple[Any, ...]:
            pairs = zip(cotangents, call.results, strict=True)
            seeds = [_known(None if isinstance(c, SymbolicZero) else c, a) for c, a in pairs if _inexact(a)]
            found = iter(self.pure(call.cotangents())(*values, *seeds))
            return (*[None] * n, *(next(found) if _inexact(a) else None for a in call.avals))

        ruled.defvjp(forward, backward, symbolic_zeros=True)
        return ruled

    def _refuse(self, active: Sequence[bool]) -> None:
        inside = [f"State {r.name!r}" if r.inside else "" for r in self.reads]
        for what, flag in zip([*inside, *["value closed over"] * len(self.tracers)], active, strict=True):
            if flag and what:
                raise DerivativeError(
                    f"the {what} is differentiated, and used inside a function whose derivative rule is "
                    "about its arguments alone; pass the value to the function as an argument"
                )


def _inexact(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _known(tangent: Any, like: Any) -> Any:
    return jnp.zeros(like.shape, like.dtype) if tangent is None else tangent


def _no_tangent(x: Any) -> Any:
    return np.zeros(x.shape, jax.dtypes.float0)
