"""`vjp` and `linearize`: the value of a function at a point, and its derivative there, to be called often."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from stategrad.errors import GradientError
from stategrad.state import LOCK, refuse_in_callbacks
from stategrad.user_frame import user_line

from .linear_maps import Kind, LinearMap, Pullback
from .parts import Inputs
from .points import point_at
from .selection import Request
from .static import Static
from .wanted import WantedStates, is_sequence


def vjp(
    fn: Callable[..., Any],
    *primals: Any,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = 0,
    has_aux: bool = False,
    final_states: Any = None,
    check_states: bool = True,
    unit_aware: bool = False,
    debug_nan: bool = False,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    **kwargs: Any,
) -> Any:
    """The value of a function and its pullback, from cotangents of the value to cotangents of arguments and
    States.

        out, pullback = vjp(f, x, grad_states=w)
        by_w, by_x = pullback(jnp.ones_like(out))

    The function runs once, compiled, and what it writes to States is committed before `vjp` returns. The
    pullback is a compiled program of its own, which can be called often, mapped, differentiated, and returned
    from `jax.jit`.

    Args:
        fn, primals: a function that gives any pytree of arrays, or with `has_aux` a pair of that and any
            pytree; and its positional arguments.
        grad_states: the States to differentiate by, by what they hold on entry: a State or any list, tuple,
            dict, mapping or Module of States.
        argnums: as for `grad`, but 0 by default. None, or no `primals`: by no argument.
        has_aux: `fn` returns `(value, aux)`; `aux` is not differentiated, and is a third result.
        final_states: States of which the final value is differentiated too: the pullback takes their
            cotangents, `pullback(cotangent, state_cts)`, in the same container.
        check_states: a State that the function does not read is an error; otherwise its cotangent is zero.
        unit_aware: a cotangent may be a quantity of saiunit or a plain number. What comes back has its unit
            times that of the value, over that of what it is by. Otherwise quantities there are an error.
        debug_nan: raise `NonFiniteError` if the value, aux or a new value of a State is not finite, with
            nothing committed; and from each call of the pullback, if what that gives is not.
        static_argnums, static_argnames: arguments that are part of the program; kwargs: passed to `fn`.

    Returns:
        `(value, pullback)` or `(value, pullback, aux)`. The pullback gives the cotangents by arguments, by
        States in the container of `grad_states`, or the pair `(by states, by arguments)`.

    Raises:
        GradientError: nothing to differentiate by; no such argument, or one of integers or booleans; a State
            that is not read; a derivative that does not exist.
        NonFiniteError: with `debug_nan`, something is not finite.
        TraceError, StateError: as for `jit`.
    """
    request = _request(grad_states, argnums if primals else None, has_aux, check_states, unit_aware)
    if request.states is None and (request.argnums is None or _is_empty(request.argnums)):
        raise _nothing("vjp", argnums)
    static = Static.of(fn, static_argnums, static_argnames)
    refuse_in_callbacks()
    with LOCK:
        point = point_at(fn, primals, kwargs, static, request, final_states)
        ran, parts = Kind.of(point, point.inputs, transposable=True).at(point, debug_nan, reverse=True)
    value, aux = point.split(ran)
    return value, Pullback(*parts), *aux


def linearize(
    fn: Callable[..., Any],
    *primals: Any,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    has_aux: bool = False,
    final_states: Any = None,
    check_states: bool = True,
    debug_nan: bool = False,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    **kwargs: Any,
) -> Any:
    """The value of a function and its derivative as a linear function, from tangents of arguments and States
    to tangents of the value.

        out, linear = linearize(f, x, y)
        tangent = linear(dx, dy)

    The function runs once, compiled, and what it writes to States is committed once, before `linearize`
    returns. The linear function is a program of its own, compiled once for equal functions.

    Args:
        fn, primals, grad_states, has_aux, check_states, static_argnums, static_argnames, kwargs: as for
            `vjp`.
        argnums: the arguments to differentiate by. None means all without `grad_states`, and none with them.
        final_states: States of which the tangents of the final values are given too.
        debug_nan: as for `vjp`, here and in each call of the linear function.

    Returns:
        `(value, linear)` or `(value, linear, aux)`. The linear function is called as
        `linear(*tangents, state_tangents=…)`, with one tangent for each of `argnums` and the tangents of
        States in the container of `grad_states`. It gives the tangent of the value, or with `final_states`
        the pair of that and theirs, in their container.

    Raises:
        GradientError, NonFiniteError, TraceError, StateError: as for `vjp`.
    """
    request = _request(grad_states, argnums, has_aux, check_states)
    request = replace(request, keep_units=True)
    if request.states is None and (not primals or _is_empty(request.argnums)):
        raise _nothing("linearize", argnums)
    static = Static.of(fn, static_argnums, static_argnames)
    refuse_in_callbacks()
    with LOCK:
        point = point_at(fn, primals, kwargs, static, request, final_states)
        inputs = point.inputs
        if request.states is None and request.argnums is None:
            inputs = Inputs(tuple(map(point.argument, range(len(primals)))), False, None)
        kind = Kind.of(point, inputs, transposable=False)
        ran, parts = kind.at(point, debug_nan, reverse=False)
    value, aux = point.split(ran)
    return value, LinearMap(*parts), *aux


def _request(
    grad_states: Any, argnums: Any, has_aux: bool, check_states: bool, unit_aware: bool = False
) -> Request:
    numbers = tuple(argnums) if is_sequence(argnums) else argnums
    return Request(WantedStates.of(grad_states), numbers, bool(has_aux), False, check_states, unit_aware)


def _is_empty(argnums: Any) -> bool:
    return isinstance(argnums, tuple) and not argnums


def _nothing(name: str, argnums: Any) -> GradientError:
    return GradientError(
        f"{name}{user_line()} has nothing to differentiate by: there are no arguments or argnums is "
        f"{argnums!r}, and there are no States in grad_states"
    )
