"""jacobian: a function and all its partial derivatives in one program, by a basis pushed through one half."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from stategrad.ir import Builder, Cell, DerivativeError, Function, IRTypeError, Module, Type, Value
from stategrad.ir.lazy import Lazy
from stategrad.ir.record import record

from .demand import demand_of
from .derivative_passes import with_functions
from .gradient import Forward, differentiable_results
from .inline import inline_function
from .jvp import jvp_function
from .local_cells import with_local_cells
from .names import Fresh, cell_named, function_named
from .pipeline import Pass, register_pass
from .routing import RoutingBuilder
from .spec import CellName, FunctionName
from .standard import simplify_function
from .thread_state import thread_function
from .transpose import Transposer

if TYPE_CHECKING:
    from . import basis as bases
    from . import push as pushes
else:
    bases, pushes = Lazy("stategrad.passes.basis"), Lazy("stategrad.passes.push")

Mode = Literal["reverse", "forward"]
Block = tuple[int, int]
"""The number of a result, and of an input: arguments first, then cells."""

_ALL = 1 << 30


def jacobian_function(
    function: Function,
    args: Sequence[int],
    cells: Sequence[Cell] = (),
    results: Sequence[int] | None = None,
    mode: Mode = "reverse",
    instead: bool = False,
    name: str | None = None,
) -> Function:
    """A function together with its Jacobian.

    Parameters: those of the function. Results: those of the function, without those that are differentiated
    if the derivatives come `instead`; then for each of `results` (by default all that can have one) the
    derivative by each of `args` and by what each of `cells` holds on entry, of the shape of the result
    followed by that of the argument or cell. The effects of the function happen once.

    In reverse, a basis of each result is pulled back, and a derivative has the element type of the argument;
    forward, a basis of each argument and cell is pushed, and it has that of the result.

    Raises:
        IRTypeError: an argument, result or cell has no derivative, or is asked for twice.
        DerivativeError: an operation on the way has none.
    """
    results = differentiable_results(function) if results is None else results
    for group in (args, cells, results):
        if len({*group}) < len(group):
            raise IRTypeError(f"jacobian of @{function.name}: an argument, cell or result is named twice")
    of = _Of(function, args, cells, results)
    names = Fresh.beside(function, cells=cells)
    try:
        open_function, blocks = _by_halves(of, mode, names)
    except DerivativeError:
        if mode == "reverse":
            raise
        open_function, blocks = _together(of)
    b, params, primal = open_function
    found = [
        blocks.get((i, k)) or b.zeros(_block_type(function.results[r].type, by, mode))
        for i, r in enumerate(results)
        for k, by in enumerate(of.types)
    ]
    kept = [v for r, v in enumerate(primal) if not (instead and r in results)]
    made = name or names.functions.fresh(f"{function.name}.jacobian")
    return b.function(made, params, [*kept, *found], function.location)


class _Of(NamedTuple):
    """What a Jacobian is taken of and by."""

    function: Function
    args: Sequence[int]
    cells: Sequence[Cell]
    results: Sequence[int]

    @property
    def types(self) -> list[Type]:
        """The types of the inputs: arguments, then cells."""
        return [*(self.function.params[i].type for i in self.args), *(c.type for c in self.cells)]


class _Open(NamedTuple):
    """The primal program, to be continued: its builder, parameters and results."""

    b: Builder
    params: Sequence[Value]
    results: Sequence[Value]


def _block_type(result: Type, by: Type, mode: Mode) -> Type:
    return (by if mode == "reverse" else result).with_shape((*result.shape, *by.shape))


# ------------------------------------------------------------------------------------------------ one half
def _by_halves(of: _Of, mode: Mode, names: Fresh) -> tuple[_Open, dict[Block, Value]]:
    """The primal half, and the derivatives by a basis that is pushed through the other half."""
    demand = demand_of(of.function.body, of.results, ())
    forward = Forward(of.function, of.args, of.cells, names, demand, RoutingBuilder())
    halves, b = forward.halves, forward.continued()
    live = [i for i, r in enumerate(of.results) if halves.result_tangents[r] is not None]
    make = _pullback if mode == "reverse" else _tangents
    half = make(of, forward, [of.results[i] for i in live], names)
    push = pushes.Push(b, half.function, list(halves.residuals))
    blocks: dict[Block, Value] = {}
    for start in range(len(half.starts)):
        for end, pushed in zip(half.ends, push.basis(start), strict=True):
            if mode == "reverse":
                blocks.update(_written(b, (live[start], end), pushed, half.starts[start], True))
            else:
                blocks.update(_written(b, (live[end], start), pushed, half.starts[start], False))
    return _Open(b, halves.params, halves.results), blocks


class _Half(NamedTuple):
    """A pure linear function of residuals and then of what a basis starts from, with the types of that; and
    which inputs (of those asked for) or live results its own results stand for.
    """

    function: Function
    starts: Sequence[Type]
    ends: Sequence[int]


def _pullback(of: _Of, forward: Forward, live: Sequence[int], names: Fresh) -> _Half:
    halves, transposer, b = forward.halves, Transposer(names), Builder()
    linear = halves.linear_region([*halves.residuals.values(), *forward.tangent_params], live)
    known = [Value(v.type, v.name) for v in halves.residuals]
    given = [Value(v.type, f"ct_{v.name}") for v in linear.results]
    params = [*known, *[None] * len(forward.tangent_params)]
    back = transposer.region_into(b, linear, params, given, frozenset())

    place = {p: len(known) + i for i, p in enumerate(forward.tangent_params)}
    found = [back.found[place[forward.tangent_of(i)]] for i in of.args]
    for shadow in map(forward.shadow, of.cells):
        found.append(b.read(cell=transposer.cotangent_cell(shadow)) if shadow in back.exit else None)
    reached = {k: v for k, v in enumerate(found) if v is not None}
    made = b.function("pullback", [*known, *given], reached.values())
    made = with_local_cells(made, transposer.cotangent_cells.values())
    return _Half(_without_calls(thread_function(made).function), [v.type for v in given], [*reached])


def _tangents(of: _Of, forward: Forward, live: Sequence[int], names: Fresh) -> _Half:
    halves, b = forward.halves, Builder()
    linear = halves.linear_region((), live)
    seeds = [Value(c.type, f"d_{c.name}") for c in of.cells]
    for cell, value in zip(of.cells, seeds, strict=True):
        b.write(value, cell=forward.shadow(cell))
    b.operations.extend(linear.operations)
    b.locals.extend(linear.locals)
    params = [*halves.residuals.values(), *map(forward.tangent_of, of.args), *seeds]
    made = with_local_cells(b.function("tangents", params, linear.results), forward.run.shadows.values())
    return _Half(_without_calls(thread_function(made).function), of.types, range(len(live)))


def _without_calls(function: Function) -> Function:
    return simplify_function(inline_function(function, _ALL))


def _written(
    b: Builder, block: Block, pushed: "pushes.Pushed", basis: Type, basis_first: bool
) -> dict[Block, Value]:
    """A block written out; none where nothing of the basis arrived."""
    if pushed is None or isinstance(pushed, Value):
        return {}
    return {block: bases.dense(b, pushed, basis.shape, basis_first)}


# ------------------------------------------------------------------------------------------------ together
def _together(of: _Of) -> tuple[_Open, dict[Block, Value]]:
    """Both halves at once, for what has no residuals, such as an unbounded loop. The cells that the function
    touches are read at its start and written at its end.
    """
    b, count = Builder(), len(of.function.results)
    threaded = thread_function(jvp_function(of.function, of.args, of.cells, of.results))
    params = [Value(v.type, v.name) for v in of.function.params]
    push = pushes.Push(
        b, _without_calls(threaded.function), [*(b.read(cell=c) for c in threaded.inputs), *params]
    )
    blocks: dict[Block, Value] = {}
    found: list[pushes.Pushed] = []
    for k, by in enumerate(of.types):
        found = push.basis(k)
        for i, pushed in enumerate(found[count : count + len(of.results)]):
            blocks.update(_written(b, (i, k), pushed, by, False))
    fixed = [v for v in found if isinstance(v, Value)]
    primal, final = fixed[:count], fixed[len(fixed) - len(threaded.outputs) :]
    for cell, value in zip(threaded.outputs, final, strict=True):
        b.write(value, cell=cell)
    return _Open(b, params, primal), blocks


# ------------------------------------------------------------------------------------------------ the pass
@register_pass
@record
class Jacobian(Pass):
    """Adds @f.jacobian: a function together with its Jacobian."""

    name = "jacobian"

    of: FunctionName | None = None
    """The function; by default the last one."""
    wrt: tuple[CellName, ...] = ()
    """The cells whose value on entry is differentiated by."""
    args: tuple[int, ...] = ()
    """The arguments that are differentiated by."""
    results: tuple[int, ...] | None = None
    """The results that are differentiated; by default all that can be."""
    mode: Mode = "reverse"
    """Which half a basis is pushed through."""
    instead: bool = False
    """The derivatives come instead of the results that are differentiated."""

    def run(self, module: Module) -> Module:
        function = list(module.functions.values())[-1] if self.of is None else function_named(module, self.of)
        cells = list(map(cell_named(module), self.wrt))
        made = jacobian_function(function, self.args, cells, self.results, self.mode, self.instead)
        return with_functions(module, made)
