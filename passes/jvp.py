"""jvp: a function and its tangents in one program."""

from collections.abc import Sequence

from stategrad.ir import Builder, Cell, Function, IRTypeError, Value

from .demand import demand_of
from .forward import Forwarder
from .gradient import check_args, check_results, differentiable_results
from .linearize import check_active
from .local_cells import with_local_cells
from .names import Fresh


def jvp_function(
    function: Function,
    args: Sequence[int],
    cells: Sequence[Cell] = (),
    results: Sequence[int] | None = None,
    final_cells: Sequence[Cell] = (),
    name: str | None = None,
) -> Function:
    """A function together with its tangents.

    Parameters: those of the function, a tangent for each of `args`, and one for what each of `cells` holds on
    entry. Results: those of the function, the tangent of each of `results` (by default all that can have
    one), and that of what each of `final_cells` holds at the end. The effects of the function happen once.

    Raises:
        IRTypeError: an argument, result or cell has no derivative, or is asked for twice.
        DerivativeError: an operation on the way has none.
    """
    results = differentiable_results(function) if results is None else results
    check_args(function, args)
    check_results(function, results, final_cells)
    if len({*args}) < len(args) or len({*cells}) < len(cells):
        raise IRTypeError(f"jvp of @{function.name}: an argument or cell is given two tangents")
    flags = tuple(i in args for i in range(len(function.params)))
    active = check_active(function, flags, cells)
    names = Fresh.beside(function, cells=(*cells, *final_cells))
    run = Forwarder(names, demand_of(function.body, results, final_cells))
    inner = run.region(run.body(function), flags, active)

    seeds = [Value(c.type, f"d_{c.name}") for c in cells]
    b = Builder()
    b.locals = inner.b.locals
    for cell, value in zip(cells, seeds, strict=True):
        b.write(value, cell=run.shadow(cell))
    b.operations += inner.b.operations
    tangents = [inner.result_tangents[i] or b.zeros(function.results[i].type) for i in results]
    exits = [b.read(cell=run.shadow(c)) if c in inner.exit else b.zeros(c.type) for c in final_cells]
    given = [t for t in (inner.tangent_params[i] for i in args) if t is not None]
    made = b.function(
        name or names.functions.fresh(f"{function.name}.jvp"),
        [*inner.params, *given, *seeds],
        [*inner.results, *tangents, *exits],
        function.location,
    )
    return with_local_cells(made, run.shadows.values())
