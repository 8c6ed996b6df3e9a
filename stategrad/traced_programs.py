"""Programs that JAX traced, and its primitives, as any version of JAX lets us look at them."""

from collections.abc import Sequence
from typing import Any

import jax


def open_program(program: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants; newer versions of JAX hold both in one object."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def scan_groups(params: dict[str, Any], count: int) -> tuple[int, int]:
    """How many of the `count` operands of a `scan` equation are constants, and how many are carried."""
    if "ft_in" not in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].update(list(range(count))).unpack()
    return len(list(consts)), len(list(carry))


def bind(primitive: Any, params: dict[str, Any], context: Any, operands: Sequence[Any]) -> list[Any]:
    """Applies a primitive as an equation of these parameters does; gives its results."""
    with context.manager:
        found = primitive.bind(*operands, **primitive.get_bind_params(params))
    return list(found) if primitive.multiple_results else [found]


def result_avals(primitive: Any, params: dict[str, Any], context: Any, operands: Sequence[Any]) -> list[Any]:
    """The JAX types of the results of a primitive, from the JAX types of its operands."""
    closed = jax.make_jaxpr(lambda *given: bind(primitive, params, context, given))(*operands)
    return [v.aval for v in open_program(closed)[0].outvars]


def is_high(primitive: Any, params: dict[str, Any], operands: Sequence[Any]) -> bool:
    """Whether JAX lowers a primitive only after replacing it by others (`expanded`)."""
    return primitive.is_high(*operands, **params)


def expanded(primitive: Any, params: dict[str, Any], context: Any, operands: Sequence[Any]) -> Any:
    """The jaxpr that stands for such a primitive."""

    def expand(*given: Any) -> list[Any]:
        with context.manager:
            found = primitive.to_lojax(*given, **params)
        return list(found) if primitive.multiple_results else [found]

    return jax.make_jaxpr(expand)(*operands)


def runs_elsewhere(context: Any) -> bool:
    """Whether the context of an equation says more than the array program: `compute_on`, XLA metadata."""
    return context.compute_type is not None or bool(context.xla_metadata)


def variable(tracer: Any) -> Any:
    """The variable that a tracer became in the jaxpr that was traced, or None."""
    return getattr(tracer, "val", None)
