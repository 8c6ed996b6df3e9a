"""gradient: a function and its pullback in one program, by a tape of what depends on tangents."""

from collections.abc import Sequence

from stategrad.ir import Builder, Cell, Function, IRTypeError, Value

from .demand import Everything, demand_of
from .linearize import LinearizeContext, Linearizer, check_active
from .local_cells import with_local_cells
from .names import Fresh
from .routing import RoutingBuilder
from .tape import TapeTranspose, TapingBuilder
from .transpose import Transposer


def gradient_function(
    function: Function,
    args: Sequence[int],
    cells: Sequence[Cell] = (),
    results: Sequence[int] | None = None,
    final_cells: Sequence[Cell] = (),
    name: str | None = None,
    unit: bool = False,
) -> Function:
    """A function together with its pullback.

    Parameters: those of the function, a cotangent for each of `results` (by default all that can have one),
    and one for what each of `final_cells` holds at the end. Results: those of the function, the gradient by
    each of `args`, and the gradient by what each of `cells` holds on entry; zeros where nothing depends on
    it. The effects of the function happen once. With `unit` the cotangents of the results are ones rather
    than parameters.

    Raises:
        IRTypeError: an argument, result or cell has no derivative.
        DerivativeError: an operation on the way has none.
    """
    results = differentiable_results(function) if results is None else results
    check_results(function, results, final_cells)
    names = Fresh.beside(function, cells=(*cells, *final_cells))
    b = TapingBuilder()
    forward = Forward(function, args, cells, names, demand_of(function.body, results, final_cells), b)
    halves, transposer = forward.halves, Transposer(names)
    given = [Value(function.results[i].type, f"ct_{function.results[i].name}") for i in results]
    final = [Value(c.type, f"ct_{c.name}") for c in final_cells]

    b.at("transpose", function.location)
    if unit:
        seeds, given = [b.constant(1.0, v.type, v.name) for v in given], []
    else:
        seeds = given
    back = TapeTranspose(
        transposer,
        b,
        [(halves.result_tangents[i], seed) for i, seed in zip(results, seeds, strict=True)],
        [(forward.shadow(c), v) for c, v in zip(final_cells, final, strict=True) if c in halves.exit],
    )
    b.at("transpose", function.location)
    gradients = [
        *(back.cotangent(forward.tangent_of(i)) for i in args),
        *(back.cotangent_held(forward.shadow(c)) for c in cells),
    ]
    made = b.function(
        name or names.functions.fresh(f"{function.name}.gradient"),
        [*halves.params, *given, *final],
        [*halves.results, *gradients],
        function.location,
    )
    return with_local_cells(made, transposer.cotangent_cells.values())


class Forward:
    """The halves of a function, open, and what drivers ask of them."""

    def __init__(
        self,
        function: Function,
        args: Sequence[int],
        cells: Sequence[Cell],
        names: Fresh,
        demand: Everything,
        b: RoutingBuilder,
    ) -> None:
        check_args(function, args)
        flags = tuple(i in args for i in range(len(function.params)))
        self.run = Linearizer(names, demand)
        active = check_active(function, flags, cells)
        self.halves: LinearizeContext = self.run.region_into(b, self.run.body(function), flags, active)

    @property
    def tangent_params(self) -> list[Value]:
        return [p for p in self.halves.tangent_params if p is not None]

    def tangent_of(self, arg: int) -> Value:
        found = self.halves.tangent_params[arg]
        assert found is not None  # `arg` is one of `args`
        return found

    def shadow(self, cell: Cell) -> Cell:
        return self.run.shadow(cell)

    def continued(self) -> Builder:
        """A builder that goes on where the primal half ends."""
        b = Builder()
        b.operations, b.locals = self.halves.b.operations, self.halves.b.locals
        return b


def differentiable_results(function: Function) -> list[int]:
    """The indices of the results that can have a tangent."""
    return [i for i, v in enumerate(function.results) if v.type.differentiable]


def check_args(function: Function, args: Sequence[int]) -> None:
    """Raises IRTypeError unless every index is that of a parameter."""
    for i in args:
        if not 0 <= i < len(function.params):
            raise IRTypeError(
                f"@{function.name} has {len(function.params)} parameters, there is no argument {i}"
            )


def check_results(function: Function, results: Sequence[int], cells: Sequence[Cell]) -> None:
    """Raises IRTypeError unless these results exist, and they and the cells have a derivative."""
    for i in results:
        if not 0 <= i < len(function.results):
            raise IRTypeError(f"@{function.name} has {len(function.results)} results, there is no result {i}")
        if not function.results[i].type.differentiable:
            raise IRTypeError(
                f"result {i} of @{function.name} is {function.results[i].type}: it has no derivative"
            )
    for cell in cells:
        if not cell.type.differentiable:
            raise IRTypeError(f"${cell.name}: {cell.type} has no derivative")
