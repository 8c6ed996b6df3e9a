"""Functions of jax.lax compared with what the importer makes of them: JAX is the truth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from stategrad.importing import import_jaxpr
from stategrad.ir import Function, Names
from tests.row_checks import jvp_function, run, same, vjp_function

# What XLA computes in an own way differs from NumPy by more than rounding.
LOOSE = {
    "float64": 1e-12,
    "float32": 1e-5,
    "bfloat16": 3e-2,
    "float16": 4e-3,
    "complex64": 1e-5,
    "complex128": 1e-12,
}


def imported(function: Callable[..., Any], *args: Any) -> Function:
    """The function as an IR program that has no foreign operation."""
    made = import_jaxpr(jax.make_jaxpr(function)(*args), "f", None, Names()).function
    assert not [op.name for op in made.body.operations if "." in op.name]
    return made


@dataclass(frozen=True)
class Case:
    """A function of JAX, and where to compare it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]

    @property
    def active(self) -> list[int]:
        """The operands that have tangents."""
        return [i for i, a in enumerate(self.args) if is_inexact(a)]

    @property
    def bound(self) -> float:
        """How far off results may be."""
        if self.function is lax.nextafter:
            return 0.0
        return max((LOOSE.get(str(a.dtype), 0.0) for a in self.args), default=0.0)

    def of_active(self, args: Sequence[Any], *xs: Any) -> list[Any]:
        """The results that have tangents, from the operands that have them."""
        given = dict(zip(self.active, xs, strict=True))
        leaves = jax.tree.leaves(self.function(*(given.get(i, a) for i, a in enumerate(args))))
        return [y for y in leaves if is_inexact(y)]


def is_inexact(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def case(function: Callable[..., Any], *args: Any) -> Case:
    return Case(function, tuple(map(jnp.asarray, args)))


def directions(like: Sequence[Any], seed: int) -> list[Any]:
    """An array of each type, away from zero."""
    rng = np.random.default_rng(seed)
    return [_direction(rng, x) for x in like]


def _direction(rng: np.random.Generator, like: Any) -> Any:
    drawn = rng.uniform(0.5, 1.5, like.shape)
    return jnp.asarray(
        drawn + 1j * rng.uniform(0.5, 1.5, like.shape) if like.dtype.kind == "c" else drawn, like.dtype
    )


def oracle(cases: Mapping[str, Case]) -> dict[str, tuple[list[Any], ...]]:
    """Values, jvps and vjps by JAX: one compilation for all, which is what takes the time."""

    def one(case: Case, args: Sequence[Any]) -> tuple[list[Any], ...]:
        values = jax.tree.leaves(case.function(*args))
        primals = [args[i] for i in case.active]
        if not (primals and any(map(is_inexact, values))) or case.function is lax.nextafter:
            return values, [], []
        outputs, moved = jax.jvp(partial(case.of_active, args), primals, directions(primals, 0))
        back = jax.vjp(partial(case.of_active, args), *primals)[1](directions(outputs, 1))
        return values, moved, list(back)

    def all_of(args: Mapping[str, Sequence[Any]]) -> dict[str, tuple[list[Any], ...]]:
        return {name: one(case, args[name]) for name, case in cases.items()}

    return jax.jit(all_of)({name: case.args for name, case in cases.items()})


def compare(case: Case, expected: tuple[list[Any], ...], what: str = "") -> None:
    """Our values, jvp and vjp with those of JAX."""
    values, moved, back = expected
    made, args = imported(case.function, *case.args), case.args
    for x, y in zip(run(made, args), values, strict=True):
        same(x, y, case.bound, what)
    if not moved:
        return
    jvp = jvp_function(made)
    for x, y in zip(run(jvp, [*args, *directions([args[i] for i in case.active], 0)]), moved, strict=True):
        same(x, y, case.bound, f"jvp of {what}")
    vjp = vjp_function(jvp, len(args))
    for x, y in zip(run(vjp, [*args, *directions(moved, 1)]), back, strict=True):
        same(x, y, case.bound, f"vjp of {what}")


def check(function: Callable[..., Any], *args: Any) -> None:
    """One case alone."""
    alone = case(function, *args)
    compare(alone, oracle({"": alone})[""])
