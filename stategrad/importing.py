"""From a program that JAX traced to our IR: a table entry for each primitive, regions for loops and branches, shared
functions for nested jits, foreign operations for everything else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from stategrad.ir import (
    UNKNOWN,
    Builder,
    Cell,
    Function,
    IRTypeError,
    Location,
    Names,
    Operation,
    Region,
    Source,
    Type,
    Value,
    clone_region,
    reachable,
    walk,
)
from stategrad.ir.dtypes import BOOL
from stategrad.ir.opdef import OpDef, register_namespace

from . import jax_compat as compat
from . import lax_elementwise, lax_structure
from .errors import StateError, TraceError
from .foreign import ForeignOp, TracedSource
from .import_structured import STRUCTURED
from .recipes import Recipes
from .traced_names import function_name, parameter_names
from .user_frame import is_user_file

_NATIVE = {**lax_structure.TABLE, **lax_elementwise.TABLE}
_ELEMENTWISE = frozenset(lax_elementwise.TABLE)
_RECIPES = Recipes()
_INLINED = 4
_FLAG = Type(BOOL)


@dataclass(frozen=True)
class Imported:
    """An imported program.

    Attributes:
        function: its parameters are `captured` and then those of the jaxpr.
        captured: constants of the jaxpr that are tracers of an enclosing JAX trace.
    """

    function: Function
    captured: list[Any]


def import_jaxpr(
    program: Any, name: str, cell_of: Callable[[dict[str, Any], Type], Cell], names: Names
) -> Imported:
    """Imports a jaxpr that may read and write States.

    Args:
        program: what `jax.make_jaxpr` gives.
        name: the name of the function.
        cell_of: the cell that a read or write is about, from the parameters of its equation and the value's type.
        names: gives out the names of functions.

    Raises:
        StateError: a State is used inside something whose body JAX alone understands.
        TraceError: a value is no array that the IR has a type for.
    """
    _, consts = compat.open_program(program)
    captured = [c for c in consts if isinstance(c, compat.Tracer)]
    return Imported(Imports(cell_of, names).entry(program, name, captured), captured)


class Imports:
    """What the regions of one import share: nested jits by identity, and names."""

    def __init__(
        self, cell_of: Callable[[dict[str, Any], Type], Cell], names: Names, inline: bool = False
    ) -> None:
        self.cell_of = cell_of
        self.names = names
        self.inline = inline
        self._functions: dict[Any, tuple[Any, Function]] = {}
        self._adopted: dict[Function, Function] = {}

    def entry(self, program: Any, name: str, captured: Sequence[Any] = ()) -> Function:
        """The function that a whole program becomes; `captured` constants lead its parameters."""
        jaxpr, _ = compat.open_program(program)
        importer = Importer(self, UNKNOWN)
        closed_over = [importer.capture(c) for c in captured]
        params = importer.parameters(program)
        results = importer.run(program, params)
        return self._finish(jaxpr, self.names.fresh(name), importer, [*closed_over, *params], results)

    def function(self, program: Any, caller: Location) -> Function:
        """The function that a nested jit becomes: one however often it is called.

        A function of a library has none of the user's lines inside. It gets its caller's, so it is one a line.
        """
        jaxpr, _ = compat.open_program(program)
        inside = UNKNOWN if is_users(jaxpr) else caller.source
        kept = self._functions.get((id(jaxpr), inside))
        if kept is None:
            importer = Importer(self, inside)
            params = importer.parameters(program)
            results = importer.run(program, params)
            name = self.names.fresh(function_name(jaxpr))
            kept = program, self._finish(jaxpr, name, importer, params, results)
            self._functions[id(jaxpr), inside] = kept
        return kept[1]

    def adopt(self, function: Function) -> Function:
        """A finished function as one of this import: renamed where names are taken, and so what it calls."""
        for each in reachable(function):
            if each not in self._adopted:
                self._adopted[each] = renamed(each, self.names.fresh(each.name), self._adopted)
        return self._adopted[function]

    def is_inlined(self, program: Any) -> bool:
        """Whether a nested jit is put in place: a small one of a library, such as `jnp.where`."""
        jaxpr, _ = compat.open_program(program)
        return self.inline or (len(jaxpr.eqns) <= _INLINED and not is_users(jaxpr))

    def _finish(
        self, jaxpr: Any, name: str, importer: "Importer", params: Sequence[Value], results: Sequence[Value]
    ) -> Function:
        place = _definition(jaxpr) or importer.otherwise
        return Function(name, importer.region(params, results, place), {}, place)


class Importer:
    """Imports equations into one region.

    Attributes:
        b: the builder of the region.
        otherwise: the location of equations that come from no line of the user's.
        flags: the boolean behind a number that was converted from one.
    """

    def __init__(self, imports: Imports, otherwise: Location) -> None:
        self.imports = imports
        self.b = Builder()
        self.otherwise = otherwise
        self._env: dict[Any, Value] = {}
        self._constants: dict[Any, Value] = {}
        self._captured: dict[int, Value] = {}
        self.flags: dict[Value, Value] = {}

    # ------------------------------------------------------------------ programs
    def parameters(self, program: Any) -> list[Value]:
        """New values for the parameters of a jaxpr, by the user's names; constants it leaves open come first."""
        jaxpr, consts = compat.open_program(program)
        variables = [*jaxpr.constvars[len(consts) :], *jaxpr.invars]
        names = parameter_names(jaxpr, len(variables))
        return [Value(compat.type_of_aval(v.aval), n) for v, n in zip(variables, names, strict=True)]

    def run(self, program: Any, operands: Sequence[Value]) -> list[Value]:
        """Imports a whole jaxpr on these operands; gives its results. An open one takes its constants first."""
        jaxpr, consts = compat.open_program(program)
        outer, self._env = self._env, {}
        values = [*map(self.array, consts), *operands]
        self._env.update(zip((*jaxpr.constvars, *jaxpr.invars), values, strict=True))
        for equation in jaxpr.eqns:
            self._equation(equation)
        results = [self._atom(v, ()) for v in jaxpr.outvars]
        self._env = outer
        return results

    def inline(self, program: Any, operands: Sequence[Value]) -> list[Value]:
        """`run` for a nested program at the place of the current equation."""
        outer, self.otherwise = self.otherwise, self.b.location
        results = self.run(program, operands)
        self.otherwise = outer
        return results

    def apply(self, function: Callable[..., Any], operands: Sequence[Value]) -> list[Value]:
        """Imports what a function of JAX does to these operands."""
        return self.inline(
            jax.make_jaxpr(function)(*(compat.aval_of_type(v.type) for v in operands)), operands
        )

    def nested(self, program: Any, body: Callable[["Importer", list[Value]], Region] | None = None) -> Region:
        """A jaxpr as a region of the current operation; `body` may make it from the parameters in another way."""
        inner = Importer(self.imports, self.b.location)
        params = inner.parameters(program)
        if body is not None:
            return body(inner, params)
        return inner.region(params, inner.run(program, params), self.b.location)

    def region(self, params: Sequence[Value], results: Sequence[Value], location: Location) -> Region:
        """The finished region."""
        return Region(tuple(params), tuple(self.b.operations), tuple(results), (), location)

    # ------------------------------------------------------------------ values
    def capture(self, tracer: Any) -> Value:
        """A parameter for a tracer of an enclosing trace."""
        made = self._captured[id(tracer)] = Value(compat.type_of_aval(tracer.aval), "captured")
        return made

    def array(self, value: Any) -> Value:
        """A constant; arrays stay where they are."""
        found = self._captured.get(id(value)) or self._constants.get(id(value))
        if found is None:
            if isinstance(value, compat.Tracer):
                raise TraceError(f"a nested program of JAX closes over {value}, a value of another trace")
            found = self._constants[id(value)] = self._constant(value)
        return found

    def _constant(self, value: Any) -> Value:
        of = compat.type_of_aval(jax.typeof(value))
        if of.dtype.kind == "k":
            data, impl = jax.random.key_data(value), jax.random.key_impl(value)
            return self.apply(lambda x: jax.random.wrap_key_data(x, impl=impl), [self._constant(data)])[0]
        return self.b.constant(value if of.shape else np.asarray(value)[()], of)

    def _atom(self, atom: Any, shape: tuple[int, ...]) -> Value:
        """A variable or a literal of an equation; `shape` is what a scalar literal would be broadcast to."""
        return self._literal(atom, shape) if type(atom) is compat.Literal else self._env[atom]

    def _literal(self, literal: Any, shape: tuple[int, ...]) -> Value:
        of = compat.type_of_aval(literal.aval)
        if of.shape:
            return self.array(literal.val)
        scalar = np.asarray(literal.val, of.dtype.numpy)[()]
        key = of.dtype, shape, scalar.tobytes()
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self.b.constant(scalar, of.with_shape(shape))
        return found

    # ------------------------------------------------------------------ equations
    def _equation(self, equation: Any) -> None:
        name = equation.primitive.name
        shape = equation.outvars[0].aval.shape if name in _ELEMENTWISE else ()
        operands = [self._atom(v, shape) for v in equation.invars]
        self.b.location = TracedSource(equation.source_info.traceback, self.otherwise)
        results = self._results(name, equation, operands)
        env = self._env
        for variable, value in zip(equation.outvars, results, strict=True):
            env[variable] = value
            if not value.name:
                value.name = name
        if name == "convert_element_type" and operands[0].type == _FLAG:
            self.flags[results[0]] = operands[0]

    def _results(self, name: str, equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
        structured = STRUCTURED.get(name)
        if structured is not None:
            return structured(self, equation, operands)
        entry = _NATIVE.get(name)
        if entry is not None and not compat.runs_elsewhere(equation.ctx):
            key, recipe = _RECIPES.find(equation, operands)
            if recipe is not None and recipe.fits(equation.outvars):
                return recipe.follow(self.b, operands, name)
            found = self._native(entry, key, equation, operands)
            if found is not None:
                return found
        return self._foreign(equation, operands)

    def _native(
        self, entry: Callable[..., Any], key: Any, equation: Any, operands: Sequence[Value]
    ) -> Sequence[Value] | None:
        """What a table entry makes of an equation, or None if it cannot."""
        mark, types = len(self.b.operations), self._types(equation)
        try:
            found = entry(self.b, equation.params, operands, types)
        except IRTypeError:
            found = NotImplemented
        if found is not NotImplemented:
            results = (found,) if isinstance(found, Value) else tuple(found)
            if [v.type for v in results] == types:
                _RECIPES.keep(key, operands, self.b.operations[mark:], results)
                return results
        del self.b.operations[mark:]
        return None

    def _types(self, equation: Any) -> list[Type]:
        """The types of the results of an equation."""
        try:
            return [compat.type_of_aval(v.aval) for v in equation.outvars]
        except IRTypeError as e:
            raise TraceError(
                f"{equation.primitive.name} ({self.b.location.source}) makes a value that has no type in the IR: {e}"
            ) from e

    def _foreign(self, equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
        if compat.touches_state(equation) or any(
            map(compat.touches_state, compat.nested_programs(equation.params))
        ):
            raise _hidden_state(equation, self.b.location)
        opdef = foreign_op(equation.primitive)
        results = tuple(map(Value, self._types(equation)))
        attributes = opdef.attributes(equation)
        return self.b.append(Operation(opdef, tuple(operands), results, attributes, (), self.b.location))


# ---------------------------------------------------------------------------------------------- finished functions
def renamed(function: Function, name: str, instead: Mapping[Function, Function]) -> Function:
    """The function under another name, calling others instead; the same object if nothing changes."""
    callees = {f for op in walk(function.body) if isinstance(f := op.attributes.get("callee"), Function)}
    if name == function.name and all(instead.get(f, f) is f for f in callees):
        return function
    body = _with_callees(clone_region(function.body), instead)
    return Function(name, body, function.attributes, function.location)


def _with_callees(region: Region, instead: Mapping[Function, Function]) -> Region:
    operations = []
    for op in region.operations:
        attributes = op.attributes
        callee = attributes.get("callee")
        if isinstance(callee, Function):
            attributes = {**attributes, "callee": instead.get(callee, callee)}
        regions = tuple(_with_callees(r, instead) for r in op.regions)
        operations.append(Operation(op.opdef, op.operands, op.results, attributes, regions, op.location))
    return Region(region.params, tuple(operations), region.results, region.locals, region.location)


# ---------------------------------------------------------------------------------------------- where things come from
def is_users(jaxpr: Any) -> bool:
    """Whether the function that a jaxpr was traced from is the user's, not JAX's or ours."""
    file = jaxpr.debug_info.func_filename
    return file is not None and is_user_file(file)


def _definition(jaxpr: Any) -> Location | None:
    if not is_users(jaxpr):
        return None
    info = jaxpr.debug_info
    return Source(compat.shortened(info.func_filename), info.func_lineno or 0)


def _hidden_state(equation: Any, location: Location) -> StateError:
    params, write = _first_state(equation) or ({}, False)
    name = params["cell"].name if params else "?"
    return StateError(
        f"the State {name!r} is {'written' if write else 'read'} inside {equation.primitive.name} ({location.source}), "
        "whose body belongs to JAX; read the State outside and pass its value as an argument, and write it "
        "outside with a value that is returned"
    )


def _first_state(equation: Any) -> tuple[dict[str, Any], bool] | None:
    if equation.primitive.name in ("state_read", "state_write"):
        return equation.params, equation.primitive.name == "state_write"
    for program in compat.nested_programs(equation.params):
        for inner in compat.open_program(program)[0].eqns:
            found = _first_state(inner)
            if found is not None:
                return found
    return None


# ---------------------------------------------------------------------------------------------- foreign operations
_FOREIGN: dict[Any, ForeignOp] = {}
_NAMED: dict[str, ForeignOp] = {}


def foreign_op(primitive: Any) -> ForeignOp:
    """The operation for a primitive of JAX."""
    found = _FOREIGN.get(primitive)
    if found is None:
        name, n = primitive.name, 1
        while name in _NAMED:
            n += 1
            name = f"{primitive.name}_{n}"
        found = _FOREIGN[primitive] = _NAMED[name] = ForeignOp(name, primitive, _import_rule)
    return found


def _import_rule(program: Any, name: str) -> Function:
    return Imports(_no_state, Names(), inline=True).entry(program, name)


def _no_state(params: dict[str, Any], type: Type) -> Cell:
    raise StateError(
        f"the State {params['cell'].name!r} is used inside a rule of jax.custom_jvp or jax.custom_vjp; read it outside, "
        "and pass its value as an argument"
    )


def _find(name: str) -> OpDef | None:
    found = _NAMED.get(name)
    if found is None:
        primitive = compat.primitive_named(name)
        found = foreign_op(primitive) if primitive is not None else None
    return found


register_namespace("jax", _find)
