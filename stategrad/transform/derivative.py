"""What all derivative transforms share: a function, a request, a recipe, and a way to be called."""

from collections.abc import Callable
from typing import Any, ClassVar

from stategrad.arguments import function_name

from .engine import Engine
from .selection import Request
from .stages import Stageable
from .staging import Recipe
from .static import Static


class Derivative(Stageable):
    """A function that gives derivatives of another; subclasses say which by `recipe`.

    Args:
        fn: the function; it may read and write any State. What it writes is committed once.
        grad_states: a State or any list, tuple, dict, mapping or Module of States; results have its form.
        argnums: argument positions; an int gives a bare derivative, a sequence a tuple. None means 0 without
            `grad_states`, and none with them.
        has_aux: the function returns a pair `(value, aux)`, and only `value` is differentiated.
        return_value: return the value too.
        check_states: a State that the function does not read is an error; otherwise its derivative is zero.
        static_argnums, static_argnames: arguments that are part of the program.
        unit_aware: derivatives of and by saiunit's quantities have the unit of the value over that of what
            they are by; otherwise a quantity there is an error.
        debug_nan: raise `NonFiniteError`, and commit nothing, if something is not finite.
    """

    kind: ClassVar[str] = "derivative"
    recipe: Callable[..., Recipe]
    """`recipe(request, **options)`: what to make of a traced function."""

    def __init__(
        self,
        fn: Callable[..., Any],
        grad_states: Any = None,
        argnums: Any = None,
        has_aux: bool | None = False,
        return_value: bool = False,
        check_states: bool = True,
        static_argnums: Any = None,
        static_argnames: Any = None,
        unit_aware: bool = False,
        debug_nan: bool = False,
        **options: Any,
    ) -> None:
        self._look_like(fn)
        request = Request.of(grad_states, argnums, has_aux, return_value, check_states, unit_aware)
        static = Static.of(fn, static_argnums, static_argnames)
        self.request = request
        self._engine = Engine(fn, self.recipe(request, **options), static, debug_nan=debug_nan)

    def __repr__(self) -> str:
        return f"<{self.kind} of {function_name(self._engine.fn)}>"


def decorated(cls: type[Derivative], fn: Callable[..., Any] | None, options: dict[str, Any]) -> Any:
    """The transform of `fn`, or a decorator with these options if `fn` is not given yet."""
    return (lambda fn: cls(fn, **options)) if fn is None else cls(fn, **options)
