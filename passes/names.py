"""Names that are not taken yet, for the cells and functions that a pass makes."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import field

from stategrad.ir import Cell, Function, IRError, Module, Names, Region, clone_region, reachable, walk
from stategrad.ir.record import record


@record
class Fresh:
    """Gives out names of cells and of functions. Programs mean the same whatever they are called; their text
    does not, so two cells of one module never share a name.
    """

    cells: Names = field(default_factory=Names)
    functions: Names = field(default_factory=Names)

    @staticmethod
    def beside(*functions: Function, cells: Iterable[Cell] = ()) -> "Fresh":
        """Names that neither these functions nor anything they call or touch has."""
        known: set[Function] = set()
        every = [f for entry in functions for f in reachable(entry, known)]
        taken = {c.name for f in every for c in cells_of(f.body)} | {c.name for c in cells}
        return Fresh(Names(taken), Names(f.name for f in every))

    @staticmethod
    def in_module(module: Module) -> "Fresh":
        """Names that nothing in the module has."""
        taken = {c.name for f in module.functions.values() for c in cells_of(f.body)} | set(module.cells)
        return Fresh(Names(taken), Names(module.functions))


def cells_of(region: Region) -> Iterator[Cell]:
    """Every cell that a region touches, its own and those of inner regions too, some more than once."""
    yield from region.effects
    yield from region.locals
    for op in region.operations:
        for inner in op.regions:
            yield from cells_of(inner)


def with_own_locals(region: Region) -> Region:
    """The region itself, or, where it or a region inside has local cells, a copy with cells of its own: so
    that what is made from it can stand beside it in one module.
    """
    return clone_region(region) if _has_locals(region) else region


def _has_locals(region: Region) -> bool:
    return bool(region.locals) or any(_has_locals(inner) for op in region.operations for inner in op.regions)


def called_functions(module: Module) -> set[Function]:
    """The functions that others of the module call."""
    callees = (op.attributes.get("callee") for f in module.functions.values() for op in walk(f.body))
    return {f for f in callees if isinstance(f, Function)}


def cell_named(module: Module) -> Callable[[str], Cell]:
    """Finds cells by name.

    Raises:
        IRError: (from what is returned) the module has no such cell.
    """

    def find(name: str) -> Cell:
        if name not in module.cells:
            raise IRError(
                f"the module has no cell ${name}; "
                f"it has: {', '.join(map('${}'.format, module.cells)) or 'none'}"
            )
        return module.cells[name]

    return find


def function_named(module: Module, name: str) -> Function:
    """A function of the module.

    Raises:
        IRError: there is none of that name.
    """
    if name not in module.functions:
        raise IRError(
            f"the module has no function @{name}; it has: {', '.join(map('@{}'.format, module.functions))}"
        )
    return module.functions[name]
