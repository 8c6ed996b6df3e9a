"""trip-wire: one flag over all that a pure function returns, which says whether it is finite."""

from collections.abc import Container

from stategrad.ir import Builder, Function, Module, Type, Value
from stategrad.ir.record import record

from .names import called_functions
from .pipeline import Pass, register_pass

_FLAG = Type.parse("bool[]")


def trip_wire_function(function: Function, unwatched: Container[int] = ()) -> Function:
    """The function with one more result at the end: whether all its real and complex results are finite, but
    for those with the `unwatched` numbers.
    """
    b = Builder(function.location)
    b.operations, b.locals = list(function.body.operations), list(function.body.locals)
    watched = dict.fromkeys(v for i, v in enumerate(function.results) if i not in unwatched)
    flags = [_all_finite(b, v) for v in watched if v.type.differentiable and v.type.size]
    flag = flags[0] if flags else b.constant(True, _FLAG)
    for more in flags[1:]:
        flag = b.call_row("and", flag, more)
    flag.name = "finite"
    facts = dict(function.attributes)
    return b.function(function.name, function.params, [*function.results, flag], function.location, **facts)


def _all_finite(b: Builder, value: Value) -> Value:
    if value.type.dtype.kind == "c":
        return b.call_row("and", *(_all_finite(b, part) for part in (b.real(value), b.imag(value))))
    finite = b.is_finite(value)
    return b.reduce_and(finite, axes=tuple(range(value.type.rank))) if value.type.rank else finite


@register_pass
@record
class TripWire(Pass):
    """Adds a flag to the results of every function that no other calls: whether all the others are finite."""

    name = "trip-wire"

    def run(self, module: Module) -> Module:
        called = called_functions(module)
        made = [f if f in called else trip_wire_function(f) for f in module.functions.values()]
        return Module.of(made, module.cells.values())
