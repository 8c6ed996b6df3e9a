"""`jacrev`, `jacfwd` and `hessian`: all partial derivatives by arguments and by what States hold on entry."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

from stategrad.arguments import leaf_paths
from stategrad.errors import GradientError
from stategrad.ir import Type
from stategrad.ir.record import record
from stategrad.passes import SIMPLIFY, Jacobian, Pass
from stategrad.trace import Traced

from .blocks import Blocks
from .budget import checked_budget
from .derivative import Derivative, decorated
from .selection import Request, Selection
from .staging import Derived

Mode = Literal["reverse", "forward"]


@record
class JacobianRecipe:
    """The recipe of `jacrev` and `jacfwd`, and of `hessian`, which has two modes, one after the other."""

    request: Request
    kind: str
    modes: tuple[Mode, ...]
    holomorphic: bool
    residuals: int | float | None = None

    def derive(self, traced: Traced) -> Derived:
        """One Jacobian pass for each mode; the second differentiates what the first one gave."""
        selection = self.request.select(traced)
        values, inputs = selection.value_tree.num_leaves, len(selection.args) + len(selection.wanted)
        for what, type, mode in self._ends(selection, values):
            self._check(what, type, complex_too=self.modes == (mode,))

        def build(results: list[Any]) -> Any:
            value, aux = selection.split_value(results[: traced.results])
            found = results[traced.results :]
            blocks = Blocks(selection, found, len(self.modes), self.modes[0] == "reverse")
            return self.request.outcome(blocks.build(), value, aux)

        names = selection.names(self.kind)
        repeats = [names[k] for k in range(inputs) for _ in range(inputs ** (len(self.modes) - 1))]
        passes, names = self._passes(selection, values, inputs), (*repeats,) * values
        reverse = self.modes[0] == "reverse"
        return Derived(passes, build, traced.results, names, reverse, self.residuals)

    def _passes(self, selection: Selection, values: int, inputs: int) -> tuple[Pass, ...]:
        wrt, args, function = selection.cell_names, selection.args, selection.traced.function
        first = Jacobian(function.name, wrt, args, tuple(range(values)), self.modes[0])
        if len(self.modes) == 1:
            return (first,)
        start = len(function.results)
        again = tuple(range(start, start + values * inputs))
        return (first, *SIMPLIFY.passes, Jacobian(None, wrt, args, again, self.modes[1], instead=True))

    def _ends(self, selection: Selection, values: int) -> Iterator[tuple[str, Type, Mode]]:
        """Outputs and inputs: what an error calls them, their types, in which mode complex ones will do."""
        traced = selection.traced
        function, captured = traced.function, len(traced.captured)
        for path, value in zip(leaf_paths(selection.value_tree, ""), function.results[:values], strict=True):
            yield f"what {function.name} returns{path and f' at {path}'}", value.type, "forward"
        for i in selection.args:
            name = f"argument {traced.arguments[i - captured]!r} of {function.name}"
            yield name, function.params[i].type, "reverse"
        for cell in selection.wanted:
            yield f"the State {cell.name!r}", cell.type, "reverse"

    def _check(self, what: str, type: Type, complex_too: bool) -> None:
        kind = type.dtype.kind
        if not type.differentiable:
            raise GradientError(
                f"{what} is {type}: integers, booleans and keys have no {self.kind}; convert it to floating "
                "point, or return it as aux with has_aux=True"
            )
        if self.holomorphic and kind != "c":
            raise GradientError(f"{what} is {type}: with holomorphic=True it must be complex")
        if kind == "c" and not (self.holomorphic or complex_too):
            raise GradientError(
                f"{what} is {type}: pass holomorphic=True if the function is, or take real and imaginary "
                "parts"
            )


class JacRev(Derivative):
    """The Jacobian of a function, in reverse; see `jacrev`."""

    kind = "Jacobian"
    modes: ClassVar[tuple[Mode, ...]] = ("reverse",)

    def recipe(
        self, request: Request, holomorphic: bool = False, residuals: int | float | None = None
    ) -> JacobianRecipe:
        """All partial derivatives, of as many orders as there are modes."""
        return JacobianRecipe(request, self.kind, self.modes, holomorphic, checked_budget(residuals))


class JacFwd(JacRev):
    """The Jacobian of a function, forward; see `jacfwd`."""

    modes = ("forward",)


class Hessian(JacRev):
    """The second derivatives of a function, forward over reverse; see `hessian`."""

    kind = "Hessian"
    modes = ("reverse", "forward")


def jacrev(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = False,
    return_value: bool = False,
    holomorphic: bool = False,
    unit_aware: bool = False,
    check_states: bool = True,
    *,
    debug_nan: bool = False,
    residuals: int | float | None = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """The Jacobian of a function by arguments and by States, in reverse mode: best for more inputs than
    outputs. Also a decorator, with or without options. What the function writes is committed once.

    The result has the structure of what the function returns, and in place of each array of it the container
    of what it is differentiated by: by States, by arguments, or `(by states, by arguments)` where both are
    asked for. Each array in there has the shape of the output followed by that of the input.

    Args:
        fn: gives any pytree of real arrays, or with `has_aux` a pair of that and any pytree.
        grad_states: a State or any list, tuple, dict, mapping or Module of States; the container of the
            derivatives by States has its form.
        argnums: argument positions; an int gives a bare derivative, a sequence a tuple. None means 0 without
            `grad_states`, and none with them.
        has_aux, return_value: the result is `(Jacobian, value, aux)` with what was not asked for left out,
            and the bare Jacobian if neither.
        holomorphic: inputs and outputs are complex, and the function is holomorphic.
        unit_aware: derivatives of and by saiunit's quantities have units; otherwise those are an error.
        check_states: a State that the function does not read is an error; otherwise its derivative is zero.
        debug_nan: raise `NonFiniteError`, and commit nothing, if something is not finite.
        residuals: what may be kept of what the function makes, for its derivatives: as for `grad`.
        static_argnums, static_argnames: arguments that are part of the program.

    Raises:
        GradientError: an input or output is no array of real numbers; a State is not read.
        TraceError, StateError: as for `jit`.
    """
    options = _options(locals())
    return decorated(JacRev, fn, options)


jacobian = jacrev
"""`jacrev`."""


def jacfwd(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = False,
    return_value: bool = False,
    holomorphic: bool = False,
    unit_aware: bool = False,
    check_states: bool = True,
    *,
    debug_nan: bool = False,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """The Jacobian of a function by arguments and by States, in forward mode: best for more outputs than
    inputs. Arguments, result and errors are those of `jacrev`; nothing waits for a backward part, so there is
    no `residuals`.
    """
    return decorated(JacFwd, fn, _options(locals()))


def hessian(
    fn: Callable[..., Any] | None = None,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool | None = False,
    return_value: bool = False,
    holomorphic: bool = False,
    unit_aware: bool = False,
    check_states: bool = True,
    *,
    debug_nan: bool = False,
    residuals: int | float | None = None,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
) -> Any:
    """The second derivatives of a function by arguments and by States, mixed ones among them. What the
    function writes is committed once.

    The result has the structure of what the function returns, which need not be a scalar. In place of each
    array of it stands the container of its gradient, and in place of each array of that the container again:
    with one State and one argument `((SS, SA), (AS, AA))`, where SA is the derivative by the State and then
    by the argument. Each array has the shapes of output, first and second input one after the other.

    Arguments and errors are those of `jacrev`; with `has_aux` or `return_value` the result is
    `(Hessian, value, aux)` with what was not asked for left out.
    """
    return decorated(Hessian, fn, _options(locals()))


def _options(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != "fn"}
