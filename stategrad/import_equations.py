"""How the equations of one jaxpr become the operations of one region."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from stategrad.ir import Builder, IRTypeError, Location, Operation, Region, Type, Value
from stategrad.ir.dtypes import BOOL

from . import jax_compat as compat
from . import lax_elementwise, lax_structure
from .errors import StateError, TraceError
from .foreign import ClosureError, TracedSource
from .import_structured import STRUCTURED
from .recipes import Recipes
from .traced_names import parameter_names, result_name
from .traced_programs import open_program, runs_elsewhere, variable

if TYPE_CHECKING:
    from .importing import Imports

_NATIVE = {**lax_structure.TABLE, **lax_elementwise.TABLE}
_ELEMENTWISE = frozenset(lax_elementwise.TABLE)
_RECIPES = Recipes()
_FLAG = Type(BOOL)


class Importer:
    """Imports equations into one region.

    Attributes:
        b: the builder of the region.
        otherwise: the location of equations that come from no line of the user's.
        flags: the boolean behind a number that was converted from one.
        around: what imports the region around, or the caller of the function.
    """

    def __init__(self, imports: "Imports", otherwise: Location, around: "Importer | None" = None) -> None:
        self.imports = imports
        self.around = around
        self.b = Builder()
        self.otherwise = otherwise
        self._env: dict[Any, Value] = {}
        self._constants: dict[Any, Value] = {}
        self._captured: dict[int, Value] = {}
        self._kept: list[Any] = []
        self.flags: dict[Value, Value] = {}

    # ------------------------------------------------------------------ programs
    def parameters(self, program: Any) -> list[Value]:
        """New values for the parameters of a jaxpr, with the user's names; open constants come first."""
        jaxpr, consts = open_program(program)
        variables = [*jaxpr.constvars[len(consts) :], *jaxpr.invars]
        names = parameter_names(jaxpr, len(variables))
        return [Value(compat.type_of_aval(v.aval), n) for v, n in zip(variables, names, strict=True)]

    def run(self, program: Any, operands: Sequence[Value]) -> list[Value]:
        """Imports a whole jaxpr on these operands; gives its results. Open constants are operands too."""
        jaxpr, consts = open_program(program)
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
        """A jaxpr as a region of the current operation; `body` may make it in its own way."""
        inner = Importer(self.imports, self.b.location, self)
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

    def value_of(self, tracer: Any) -> Value | None:
        """What a tracer of the imported program has become, if that is in this region."""
        return self._env.get(variable(tracer))

    def array(self, value: Any) -> Value:
        """A constant; arrays stay where they are."""
        found = self._captured.get(id(value)) or self._constants.get(id(value))
        if found is None:
            if isinstance(value, compat.Tracer):
                raise ClosureError(f"a nested program of JAX closes over {value}, a value of another trace")
            found = self._constants[id(value)] = self._constant(value)
            self._kept.append(value)  # so that no other array gets its id
        return found

    def _constant(self, value: Any) -> Value:
        of = compat.type_of_aval(jax.typeof(value))
        if of.dtype.kind == "k":
            data, impl = jax.random.key_data(value), jax.random.key_impl(value)
            return self.apply(lambda x: jax.random.wrap_key_data(x, impl=impl), [self._constant(data)])[0]
        if isinstance(value, jax.Array) and of.shape:
            return self.b.constant(value, of)
        return self.b.constant(np.asarray(value, of.dtype.numpy)[()], of)

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
        spread = name in _ELEMENTWISE and len(equation.outvars) == 1  # a barrier keeps the shapes apart
        shape = equation.outvars[0].aval.shape if spread else ()
        self.b.location = TracedSource(equation.source_info, self.otherwise)
        operands, mark = [self._atom(v, shape) for v in equation.invars], len(self.b.operations)
        results = self._results(name, equation, operands)
        if equation.effects and compat.is_transposed(equation):
            self.imports.states.check_backward(self.b.operations[mark:])
        self._env.update(zip(equation.outvars, results, strict=True))
        if name == "convert_element_type" and operands[0].type == _FLAG:
            self.flags[results[0]] = operands[0]

    def _results(self, name: str, equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
        structured = STRUCTURED.get(name)
        if structured is not None:
            return structured(self, equation, operands)
        entry = _NATIVE.get(name)
        if entry is not None and not runs_elsewhere(equation.ctx):
            key, recipe = _RECIPES.find(equation, operands)
            if recipe is not None and recipe.fits(equation.outvars):
                return recipe.follow(self.b, operands)
            found = self._native(entry, key, equation, operands)
            if found is not None:
                return found
        return self.foreign(equation, operands)

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
                made = self.b.operations[mark:]
                _RECIPES.keep(key, operands, made, results)
                _name(made)
                return results
        del self.b.operations[mark:]
        return None

    def _types(self, equation: Any) -> list[Type]:
        """The types of the results of an equation."""
        try:
            return [compat.type_of_aval(v.aval) for v in equation.outvars]
        except IRTypeError as e:
            where = f"{equation.primitive.name} ({self.b.location.source})"
            raise TraceError(
                f"{where} makes what the IR has no type for: {e}; keep what changes in a stategrad.State, "
                "not in a reference of JAX"
            ) from e

    def foreign(self, equation: Any, operands: Sequence[Value]) -> Sequence[Value]:
        """The equation as a foreign operation.

        Raises:
            StateError: a State is used in its body.
        """
        if compat.touches_state(equation) or any(
            map(compat.touches_state, compat.nested_programs(equation.params))
        ):
            raise _hidden_state(equation, self.b.location)
        opdef, name = self.imports.foreign_op(equation.primitive), result_name(equation)
        results = tuple([Value(t, name) for t in self._types(equation)])
        attributes = opdef.attributes(equation)
        return self.b.append(Operation(opdef, tuple(operands), results, attributes, (), self.b.location))


def _name(operations: Sequence[Operation]) -> None:
    """Names results after their operations; constants are called by number."""
    for op in operations:
        if op.operands:
            for value in op.results:
                value.name = value.name or op.name


def _hidden_state(equation: Any, location: Location) -> StateError:
    params, write = _first_state(equation) or ({}, False)
    name = params["cell"].name if params else "?"
    return StateError(
        f"the State {name!r} is {'written' if write else 'read'} inside {equation.primitive.name} "
        f"({location.source}), whose body belongs to JAX; read it outside and pass its value as an argument, "
        "write it outside with a value that is returned"
    )


def _first_state(equation: Any) -> tuple[dict[str, Any], bool] | None:
    if equation.primitive.name in ("state_read", "state_write"):
        return equation.params, equation.primitive.name == "state_write"
    for program in compat.nested_programs(equation.params):
        for inner in open_program(program)[0].eqns:
            found = _first_state(inner)
            if found is not None:
                return found
    return None
