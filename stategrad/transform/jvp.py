"""`jvp` and `hvp`: derivatives of functions and of gradients in a direction of arguments and States."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from stategrad.errors import GradientError
from stategrad.state import LOCK, State, refuse_in_callbacks
from stategrad.user_frame import user_line

from .parts import Place, StateParts, distinct
from .point import Point, Watch
from .points import point_at
from .selection import Request
from .static import Static
from .wanted import WantedStates


def jvp(
    fn: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any] | None,
    *,
    grad_states: Any = None,
    state_tangents: Any = None,
    has_aux: bool = False,
    final_states: Any = None,
    check_states: bool = True,
    debug_nan: bool = False,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    **kwargs: Any,
) -> Any:
    """The value of a function and its tangent, from tangents of arguments and of what States hold on entry.

        out, tangent = jvp(f, (x,), (dx,), state_tangents={w: dw})

    One compiled program gives both. What the function writes to States is committed once.

    Args:
        fn: gives any pytree of arrays, or with `has_aux` a pair of that and any pytree.
        primals: its positional arguments.
        tangents: one for each, of the same structure, shapes and dtypes. None stands for zero, for an
            argument or in place of a leaf; leaves without a derivative take None or float0.
        state_tangents: the tangents of States, in the container of `grad_states`; or without `grad_states` a
            mapping from State to tangent.
        grad_states: the States that `state_tangents` is about.
        has_aux: `fn` returns `(value, aux)`; `aux` is not differentiated, and is the last result.
        final_states: States of which the tangents of the final values are given too, in that container.
        check_states: a State that the function does not read is an error; otherwise its tangent has no
            influence.
        debug_nan: raise `NonFiniteError`, and commit nothing, if something is not finite.
        static_argnums, static_argnames: arguments that are part of the program; their tangents are None.
        kwargs: passed to `fn`.

    Returns:
        `(value, tangent)`, with the tangents of the final States and with aux after them if there are any.
        Results without a derivative have tangents of float0, as in jax.jvp.

    Raises:
        GradientError: a tangent of another structure, shape or dtype; no tangent at all; a State that is not
            read or has integers; a derivative that does not exist.
        NonFiniteError: with `debug_nan`, something is not finite.
        TraceError, StateError: as for `jit`.
    """
    states, given = _directions(grad_states, state_tangents, "jvp")
    request = Request(states, None, bool(has_aux), False, check_states, keep_units=True)
    static = Static.of(fn, static_argnums, static_argnames)
    primals = _checked_primals(primals, "jvp")
    refuse_in_callbacks()
    with LOCK:
        point = point_at(fn, primals, kwargs, static, request, final_states)
        active, arrays = _direction(point, tangents, states, given, "jvp")
        outputs = point.outputs
        watch = _watch(point, active, [f"the tangent of {name}" for name in outputs.names.values()])
        ran = point.run(point.pure.tangents(active, outputs.numbers), arrays, watch if debug_nan else None)
    value, aux = point.split(ran)
    return value, *outputs.build(dict(zip(outputs.numbers, ran.derivatives, strict=True))), *aux


def hvp(
    fn: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any] | None = None,
    *,
    grad_states: Any = None,
    argnums: int | Sequence[int] | None = None,
    state_tangents: Any = None,
    has_aux: bool = False,
    return_value: bool = False,
    check_states: bool = True,
    unit_aware: bool = False,
    debug_nan: bool = False,
    static_argnums: int | Sequence[int] | None = None,
    static_argnames: str | Iterable[str] | None = None,
    **kwargs: Any,
) -> Any:
    """The derivative of a gradient in a direction: the Hessian of a scalar function times a vector.

    It is the tangent of `grad(fn, grad_states, argnums)(*primals)`, in its form. Arguments and States may be
    mixed: each part of the gradient changes by all parts of the direction. The function is traced once, and
    the passes differentiate its program twice, forward over reverse.

    Args:
        fn: gives a real scalar, or with `has_aux` a pair of that and any pytree.
        primals: its positional arguments.
        tangents, state_tangents: the direction, as for `jvp`.
        grad_states, argnums: what the gradient is taken by, as for `grad`: None means argument 0 without
            `grad_states`, and none with them.
        has_aux, return_value: the result is `(product, value, aux)` with what was not asked for left out.
        unit_aware: as for `grad`; the direction has the units of what it is a direction of.
        check_states, debug_nan, static_argnums, static_argnames, kwargs: as for `jvp`.

    Raises:
        GradientError, NonFiniteError: as for `grad` and `jvp`.
        TraceError, StateError: as for `jit`.
    """
    request = Request.of(grad_states, argnums, has_aux, return_value, check_states, unit_aware)
    states, given = _directions(grad_states, state_tangents, "hvp")
    static = Static.of(fn, static_argnums, static_argnames)
    primals = _checked_primals(primals, "hvp")
    refuse_in_callbacks()
    with LOCK:
        point = point_at(fn, primals, kwargs, static, request)
        point.selection.check_scalar()
        Request(states, None, check_states=check_states, keep_units=True).select(point.traced)
        active, arrays = _direction(point, tangents, states, given, "hvp")
        rows, names = point.inputs.numbers, point.inputs.names
        watch = _watch(point, active, [f"the product by {names[n]}" for n in rows], reverse=True)
        ran = point.run(point.pure.curvature(rows, active), arrays, watch if debug_nan else None)
    found = dict(zip(rows, ran.derivatives, strict=True))
    product = point.inputs.build(found, *point.selection.value_measures)
    return request.outcome(product, *point.split(ran))


# ------------------------------------------------------------------------------------------------ directions
def _directions(grad_states: Any, state_tangents: Any, name: str) -> tuple[WantedStates | None, Any]:
    """The States that have tangents, and these in the container of the States."""
    if isinstance(state_tangents, Mapping) and any(isinstance(key, State) for key in state_tangents):
        return WantedStates.of(list(state_tangents)), list(state_tangents.values())
    states = WantedStates.of(grad_states)
    if name == "jvp" and states is not None and state_tangents is None:
        raise GradientError(
            f"jvp{user_line()} is given grad_states but no tangents for them; pass state_tangents=…, in the "
            "same container"
        )
    if states is None and state_tangents is not None:
        raise GradientError(
            f"{name}{user_line()} is given state_tangents but not their States; name them in grad_states=…, "
            "or pass a mapping from State to tangent"
        )
    return (None if state_tangents is None else states), state_tangents


def _checked_primals(primals: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(primals, (tuple, list)):
        raise GradientError(
            f"primals of {name}{user_line()} is {primals!r} of type {type(primals).__name__}, expected a "
            "tuple of the arguments"
        )
    return tuple(primals)


def _direction(
    point: Point, tangents: Any, states: WantedStates | None, given: Any, name: str
) -> tuple[tuple[int, ...], list[Any]]:
    """The operands that have a tangent, and the tangents."""
    leaves = list(_of_arguments(point, tangents, name))
    if states is not None:
        leaves.extend(StateParts.of(states, point.entry).leaves(given, "tangent"))
    if not leaves:
        raise GradientError(
            f"{name} of {point.name}{user_line()} is given no tangent to differentiate in the direction of"
        )
    found = distinct(leaves)
    active = tuple(sorted(found))
    return active, [found[n] for n in active]


def _watch(point: Point, active: Sequence[int], derivatives: Sequence[str], reverse: bool = False) -> Watch:
    """What a person calls the tangents that go in and the derivatives that come out."""
    names = point.operand_names
    return Watch(tuple(f"the tangent of {names[n]}" for n in active), tuple(derivatives), reverse)


def _of_arguments(point: Point, tangents: Any, name: str) -> Iterator[tuple[Place, Any]]:
    count = len(point.traced.argument_trees)
    if tangents is None:
        return
    if not isinstance(tangents, (tuple, list)) or len(tangents) != count:
        given = f"{len(tangents)} of them" if isinstance(tangents, (tuple, list)) else repr(tangents)
        raise GradientError(
            f"tangents of {name}{user_line()} must be a tuple of {count}, one for each of the primals, "
            f"not {given}; None stands for zero"
        )
    for n, tangent in enumerate(tangents):
        yield from point.argument(n).leaves(tangent, "tangent")
