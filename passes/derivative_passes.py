"""The passes of differentiation: what linearize, transpose, gradient and jvp add to a module."""

from stategrad.ir import Function, Module
from stategrad.ir.record import record

from .gradient import check_args, gradient_function
from .jvp import jvp_function
from .linearize import linearize_function
from .names import Fresh, cell_named, function_named
from .pipeline import Pass, register_pass
from .spec import CellName, FunctionName
from .transpose import transpose_function


@register_pass
@record
class Linearize(Pass):
    """Adds the primal half @f.fwd, which keeps residuals, and the linear half @f.lin of a function."""

    name = "linearize"

    of: FunctionName
    wrt: tuple[CellName, ...] = ()
    """The cells whose value on entry is differentiated by."""
    args: tuple[int, ...] = ()
    """The arguments that are differentiated by."""
    results: tuple[int, ...] | None = None
    """The results of which the tangents are wanted; by default those of all, and of all cells at the end."""
    final: tuple[CellName, ...] = ()
    """With `results`, the cells of which the tangents at the end are wanted."""

    def run(self, module: Module) -> Module:
        function, find = function_named(module, self.of), cell_named(module)
        check_args(function, self.args)
        flags = [i in self.args for i in range(len(function.params))]
        wrt, final = list(map(find, self.wrt)), list(map(find, self.final))
        made = linearize_function(function, flags, wrt, Fresh.in_module(module), self.results, final)
        return with_functions(module, made.fwd, made.lin)


@register_pass
@record
class Transpose(Pass):
    """Adds the pullback @f.T of a linear function @f."""

    name = "transpose"

    of: FunctionName

    def run(self, module: Module) -> Module:
        made = transpose_function(function_named(module, self.of), names=Fresh.in_module(module))
        return with_functions(module, made.function)


@register_pass
@record
class Gradient(Pass):
    """Adds @f.gradient: a function together with its pullback."""

    name = "gradient"

    of: FunctionName
    wrt: tuple[CellName, ...] = ()
    """The cells whose value on entry is differentiated by."""
    args: tuple[int, ...] = ()
    """The arguments that are differentiated by."""
    results: tuple[int, ...] | None = None
    """The results that have a cotangent; by default all that can."""
    final: tuple[CellName, ...] = ()
    """The cells whose value at the end has a cotangent."""
    unit: bool = False
    """The cotangents of the results are ones, as for the gradient of a scalar, rather than parameters."""

    def run(self, module: Module) -> Module:
        find = cell_named(module)
        wrt, final = list(map(find, self.wrt)), list(map(find, self.final))
        function = function_named(module, self.of)
        return with_functions(
            module, gradient_function(function, self.args, wrt, self.results, final, unit=self.unit)
        )


@register_pass
@record
class ForwardMode(Pass):
    """Adds @f.jvp: a function together with its tangents."""

    name = "jvp"

    of: FunctionName
    wrt: tuple[CellName, ...] = ()
    """The cells whose value on entry has a tangent."""
    args: tuple[int, ...] = ()
    """The arguments that have a tangent."""
    final: tuple[CellName, ...] = ()
    """The cells of which the tangent at the end is returned."""

    def run(self, module: Module) -> Module:
        find = cell_named(module)
        wrt, final = list(map(find, self.wrt)), list(map(find, self.final))
        function = function_named(module, self.of)
        return with_functions(module, jvp_function(function, self.args, wrt, None, final))


def with_functions(module: Module, *functions: Function) -> Module:
    """The module with more functions and all that they call and touch."""
    return Module.of([*module.functions.values(), *functions], module.cells.values())
