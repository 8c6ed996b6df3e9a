"""jacobian: a function and all its partial derivatives in one program, by a basis pushed through one half."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from stategrad.ir import Builder, Cell, Function, IRTypeError, Module, Type, Value

from .basis import Shape, dense
from .derivative_passes import with_functions
from .gradient import Forward, differentiable_results
from .inline import inline_function
from .local_cells import with_local_cells
from .names import Fresh, cell_named, function_named
from .pipeline import Pass, register_pass
from .push import Push, Pushed
from .spec import CellName, FunctionName
from .standard import simplify_function
from .thread_state import thread_function
from .transpose import Transposer

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
    names = Fresh.beside(function, cells=cells)
    asked = _Asked(Forward(function, args, cells, names), args, cells, results)
    b = asked.forward.continued()
    blocks = (_reverse if mode == "reverse" else _forward)(b, asked, names)
    found = [
        blocks.get((i, k)) or b.zeros(_block_type(function.results[r].type, of, mode))
        for i, r in enumerate(results)
        for k, of in enumerate(asked.types)
    ]
    halves = asked.forward.halves
    kept = [v for r, v in enumerate(halves.results) if not (instead and r in results)]
    made = name or names.functions.fresh(f"{function.name}.jacobian")
    return b.function(made, halves.params, [*kept, *found], function.location)


class _Asked(NamedTuple):
    """What a Jacobian is taken of and by, in terms of the open halves."""

    forward: Forward
    args: Sequence[int]
    cells: Sequence[Cell]
    results: Sequence[int]

    @property
    def types(self) -> list[Type]:
        """The types of the inputs: arguments, then cells."""
        return [*(self.forward.tangent_of(i).type for i in self.args), *(c.type for c in self.cells)]

    @property
    def live(self) -> list[int]:
        """Which of `results` depend on an input, by their numbers among those."""
        tangents = self.forward.halves.result_tangents
        return [i for i, r in enumerate(self.results) if tangents[r] is not None]


def _block_type(result: Type, by: Type, mode: Mode) -> Type:
    return (by if mode == "reverse" else result).with_shape((*result.shape, *by.shape))


# ------------------------------------------------------------------------------------------------ the modes
def _reverse(b: Builder, asked: _Asked, names: Fresh) -> dict[Block, Value]:
    forward, live, transposer = asked.forward, asked.live, Transposer(names)
    linear = forward.halves.linear_region(
        [*forward.halves.residuals.values(), *forward.tangent_params], [asked.results[i] for i in live]
    )
    inner = Builder()
    known = [Value(v.type, v.name) for v in forward.halves.residuals]
    given = [Value(v.type, f"ct_{v.name}") for v in linear.results]
    linear_params = [None] * len(forward.tangent_params)
    back = transposer.region_into(inner, linear, [*known, *linear_params], given, frozenset())

    place = {p: len(known) + i for i, p in enumerate(forward.tangent_params)}
    found = [back.found[place[forward.tangent_of(i)]] for i in asked.args]
    for shadow in map(forward.shadow, asked.cells):
        found.append(inner.read(cell=transposer.cotangent_cell(shadow)) if shadow in back.exit else None)
    reached = [k for k, v in enumerate(found) if v is not None]
    pullback = inner.function("pullback", [*known, *given], [v for v in found if v is not None])

    push = Push(b, _pure(pullback, transposer.cotangent_cells.values()), list(forward.halves.residuals))
    blocks: dict[Block, Value] = {}
    for n, i in enumerate(live):
        shape = given[n].type.shape
        for k, pushed in zip(reached, push.basis(n), strict=True):
            blocks.update(_written(b, (i, k), pushed, shape, True))
    return blocks


def _forward(b: Builder, asked: _Asked, names: Fresh) -> dict[Block, Value]:
    forward, live = asked.forward, asked.live
    halves = forward.halves
    linear = halves.linear_region((), [asked.results[i] for i in live])
    seeds = [Value(c.type, f"d_{c.name}") for c in asked.cells]
    inner = Builder()
    for cell, value in zip(asked.cells, seeds, strict=True):
        inner.write(value, cell=forward.shadow(cell))
    for op in linear.operations:
        inner.append(op)
    inner.locals.extend(linear.locals)
    starts = [*map(forward.tangent_of, asked.args), *seeds]
    tangents = inner.function("tangents", [*halves.residuals.values(), *starts], linear.results)

    push = Push(b, _pure(tangents, forward.run.shadows.values()), list(halves.residuals))
    blocks: dict[Block, Value] = {}
    for k, start in enumerate(starts):
        for i, pushed in zip(live, push.basis(k), strict=True):
            blocks.update(_written(b, (i, k), pushed, start.type.shape, False))
    return blocks


def _pure(function: Function, cells: Sequence[Cell]) -> Function:
    """The function with these cells of its own, without effects and calls."""
    pure = thread_function(with_local_cells(function, cells)).function
    return simplify_function(inline_function(pure, _ALL))


def _written(b: Builder, block: Block, pushed: Pushed, basis: Shape, basis_first: bool) -> dict[Block, Value]:
    """A block written out; none where nothing of the basis arrived."""
    if pushed is None or isinstance(pushed, Value):
        return {}
    return {block: dense(b, pushed, basis, basis_first)}


# ------------------------------------------------------------------------------------------------ the pass
@register_pass
@dataclass(frozen=True)
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
