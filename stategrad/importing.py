"""From a program that JAX traced to our IR: a table entry for each primitive, regions for loops and branches,
shared functions for nested jits, foreign operations for everything else.
"""

from collections.abc import Callable, Sequence
from typing import Any

from stategrad.ir import UNKNOWN, Cell, Function, Names, Type, Value, reachable
from stategrad.ir.opdef import OpDef, register_namespace
from stategrad.ir.record import record

from . import jax_compat as compat
from .errors import StateError
from .foreign import ForeignOp
from .import_equations import Importer
from .import_functions import definition, is_users, renamed
from .import_states import StateUses
from .traced_names import function_name
from .traced_programs import open_program

CellOf = Callable[[dict[str, Any], Type], Cell]
_INLINED = 4


@record
class Imported:
    """An imported program.

    Attributes:
        function: its parameters are `captured` and then those of the jaxpr.
        captured: constants of the jaxpr that are tracers of an enclosing JAX trace.
    """

    function: Function
    captured: list[Any]


def import_jaxpr(program: Any, name: str, cell_of: CellOf, names: Names) -> Imported:
    """Imports a jaxpr that may read and write States.

    Args:
        program: what `jax.make_jaxpr` gives.
        name: the name of the function.
        cell_of: the cell that a read or write is about, from its equation's parameters and the value's type.
        names: gives out the names of functions.

    Raises:
        StateError: a State is used inside something whose body JAX alone understands.
        TraceError: a value is no array that the IR has a type for.
    """
    _, consts = open_program(program)
    captured = [c for c in consts if isinstance(c, compat.Tracer)]
    return Imported(Imports(cell_of, names).entry(program, name, captured), captured)


class Imports:
    """What the regions of one import share: nested jits by identity, and names.

    Args:
        inline: put nested jits in place.
        rules: look for States in custom rules too.
    """

    def __init__(self, cell_of: CellOf, names: Names, inline: bool = False, rules: bool = True) -> None:
        self.cell_of = cell_of
        self.rules = rules
        self.foreign_op = foreign_op
        self.effectful = _import_effectful
        self.names = names
        self.inline = inline
        self.states = StateUses()
        self._functions: dict[Any, tuple[Any, Function]] = {}
        self._adopted: dict[Function, Function] = {}

    def entry(self, program: Any, name: str, captured: Sequence[Any] = ()) -> Function:
        """The function that a whole program becomes; `captured` constants lead its parameters."""
        jaxpr, _ = open_program(program)
        importer = Importer(self, definition(jaxpr) or UNKNOWN)
        closed_over = [importer.capture(c) for c in captured]
        params = importer.parameters(program)
        results = importer.run(program, params)
        return self._finish(jaxpr, self.names.fresh(name), importer, [*closed_over, *params], results)

    def function(self, program: Any, caller: Importer) -> Function:
        """The function that a nested jit becomes: one however often it is called.

        A function of a library has none of the user's lines inside. It gets its caller's line.
        """
        jaxpr, _ = open_program(program)
        inside = UNKNOWN if is_users(jaxpr) else caller.b.location.source
        kept = self._functions.get((id(jaxpr), inside))
        if kept is None:
            importer = Importer(self, inside, caller)
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
        jaxpr, _ = open_program(program)
        return self.inline or (len(jaxpr.eqns) <= _INLINED and not is_users(jaxpr))

    def _finish(
        self, jaxpr: Any, name: str, importer: Importer, params: Sequence[Value], results: Sequence[Value]
    ) -> Function:
        place = definition(jaxpr) or importer.otherwise
        return Function(name, importer.region(params, results, place), {}, place)


# ------------------------------------------------------------------------------------- foreign operations
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
    return Imports(_no_state, Names(), inline=True, rules=False).entry(program, name)


def _import_effectful(program: Any, name: str, cell_of: CellOf, captured: Sequence[Any]) -> Function:
    return Imports(cell_of, Names(), inline=True).entry(program, name, captured)


def _no_state(params: dict[str, Any], type: Type) -> Cell:
    raise StateError(
        f"the State {params['cell'].name!r} is used inside a rule of jax.custom_jvp or jax.custom_vjp; "
        "read it outside, and pass its value as an argument"
    )


def _find(name: str) -> OpDef | None:
    found = _NAMED.get(name)
    if found is None:
        primitive = compat.primitive_named(name)
        found = foreign_op(primitive) if primitive is not None else None
    return found


register_namespace("jax", _find)
