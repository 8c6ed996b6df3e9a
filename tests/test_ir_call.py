"""`ir_call` under every transform of JAX, against JAX itself."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stategrad.backend import Program
from stategrad.ir import DerivativeError

from .backend_programs import imported, same

X = np.arange(6, dtype=np.float32).reshape(2, 3) / 7


# ---------------------------------------------------------------------------------- transforms
def recurrent(h: Any, w: Any, xs: Any) -> Any:
    def body(h: Any, x: Any) -> Any:
        h = jnp.tanh(w @ h + x)
        return h, jnp.sin(h)

    h, ys = jax.lax.scan(body, h, xs)
    return h, (ys, jnp.argmax(h))


RANDOM = np.random.default_rng(0)
ARGS = [RANDOM.normal(size=s).astype(np.float32) for s in ((3,), (3, 3), (4, 3))]
PROGRAM = Program(imported(recurrent, *ARGS))


def ours(*args: Any) -> Any:
    h, ys, best = PROGRAM.bind(*args)
    return h, (ys, best)


def loss(fn: Callable[..., Any]) -> Callable[..., Any]:
    def total(*args: Any) -> Any:
        h, (ys, _) = fn(*args)
        return jnp.sum(h**2) + jnp.sum(ys * jnp.cos(ys))

    return total


def scanned(fn: Callable[..., Any]) -> Callable[..., Any]:
    def run(h: Any, w: Any, xs: Any) -> Any:
        return jax.lax.scan(lambda h, _: fn(h, w, xs), h, None, length=2)

    return run


def gradient_norm(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda w: jnp.sum(jax.grad(loss(fn), 1)(ARGS[0], w, ARGS[2]) ** 2)


TRANSFORMS: dict[str, Callable[..., Any]] = {
    "eager": lambda f: f(*ARGS),
    "jit": lambda f: jax.jit(f)(*ARGS),
    "jvp": lambda f: jax.jvp(f, ARGS, [a + 1 for a in ARGS]),
    "jvp of one argument": lambda f: jax.jvp(lambda w: f(ARGS[0], w, ARGS[2]), ARGS[1:2], ARGS[1:2]),
    "linearize": lambda f: jax.linearize(f, *ARGS)[1](*ARGS),
    "grad": lambda f: jax.grad(loss(f), (0, 1, 2))(*ARGS),
    "jit of grad": lambda f: jax.jit(jax.grad(loss(f), 1))(*ARGS),
    "grad of jit": lambda f: jax.grad(jax.jit(loss(f)), (1, 2))(*ARGS),
    "checkpoint": lambda f: jax.grad(jax.checkpoint(loss(f)), 1)(*ARGS),
    "scan": lambda f: scanned(f)(*ARGS),
    "grad of scan": lambda f: jax.grad(lambda *a: jnp.sum(scanned(f)(*a)[0]), (0, 1, 2))(*ARGS),
    "cond": lambda f: jax.grad(
        lambda w: jax.lax.cond(w[0, 0] > 9, lambda: 0.0, lambda: loss(f)(ARGS[0], w, ARGS[2]))
    )(ARGS[1]),
    "grad of grad": lambda f: jax.grad(gradient_norm(f))(ARGS[1]),
    "jvp of grad of grad": lambda f: jax.jvp(jax.grad(gradient_norm(f)), ARGS[1:2], ARGS[1:2]),
    "grad of jvp": lambda f: jax.grad(lambda w: jax.jvp(gradient_norm(f), (w,), (w,))[1])(ARGS[1]),
    "hessian": lambda f: jax.hessian(loss(f))(*ARGS),
    "jacrev": lambda f: jax.jacrev(lambda h: f(h, *ARGS[1:])[:1])(ARGS[0]),
    "jacfwd": lambda f: jax.jacfwd(f, 1)(*ARGS)[0],
    "grad of vmap": lambda f: jax.grad(
        lambda w: jax.vmap(loss(f), (0, None, None))(np.stack(ARGS[:1] * 2), w, ARGS[2]).sum()
    )(ARGS[1]),
    "vmap of vmap": lambda f: jax.vmap(jax.vmap(f, (0, None, None)), (None, None, 0))(
        np.stack(ARGS[:1] * 2), ARGS[1], np.stack(ARGS[2:] * 3)
    ),
    "vmap of jit of grad": lambda f: jax.vmap(jax.jit(jax.grad(loss(f), 1)), (0, None, None))(
        np.stack(ARGS[:1] * 2), *ARGS[1:]
    ),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_transforms_agree_with_jax(transform: Callable[..., Any]) -> None:
    same(transform(ours), transform(recurrent))


@pytest.mark.parametrize("axes", [a for a in itertools.product((0, 1, None), repeat=3) if a != (None,) * 3])
def test_vmap_along_any_axis(axes: tuple[int | None, ...]) -> None:
    stacked = [a if x is None else np.stack([a, 2 * a], x) for a, x in zip(ARGS, axes, strict=True)]
    same(jax.vmap(ours, axes)(*stacked), jax.vmap(recurrent, axes)(*stacked))


def test_linear_programs_transpose() -> None:
    def linear(k: Any, x: Any) -> Any:
        return jnp.sin(k) * x, x.sum()

    program = Program(imported(linear, X, X))
    pull = jax.linear_transpose(lambda x: program.bind(X, x), X)
    same(pull([X, np.float32(2)]), (np.sin(X) * X + 2,))


def test_derivatives_are_made_once() -> None:
    program = Program(imported(recurrent, *ARGS))
    for _ in range(2):
        jax.grad(lambda w: jnp.sum(program.bind(ARGS[0], w, ARGS[2])[0]))(ARGS[1])
    assert len(program.derived) == 1
    jax.vmap(program.bind)(*(np.stack([a, a]) for a in ARGS))
    assert len(program.derived) == 2


def halved(x: Any) -> Any:
    return jax.lax.while_loop(lambda s: s[0] > 0.1, lambda s: (s[0] * 0.5, s[1] * s[0]), (x, x))[1]


def test_unbounded_loops_in_reverse() -> None:
    program = Program(imported(halved, 2.0))
    with pytest.raises(DerivativeError, match="has no bound on its steps"):
        jax.grad(lambda x: program.bind(x)[0])(2.0)


def test_integers_have_float0_tangents() -> None:
    def fn(i: Any, x: Any) -> Any:
        return x * i, i + 1

    program = Program(imported(fn, 3, 2.0))
    zero = np.zeros((), jax.dtypes.float0)
    wanted = jax.jvp(fn, (3, 2.0), (zero, 1.0))
    same(jax.jvp(lambda *a: tuple(program.bind(*a)), (3, 2.0), (zero, 1.0)), wanted)
    same(
        jax.grad(lambda i, x: program.bind(i, x)[0], (0, 1), allow_int=True)(3, 2.0),
        jax.grad(lambda i, x: fn(i, x)[0], (0, 1), allow_int=True)(3, 2.0),
    )


def test_derivatives_of_foreign_operations() -> None:
    def fn(x: Any) -> Any:
        return jnp.linalg.cholesky(x @ x.T + 3 * jnp.eye(3)).sum() + jax.scipy.special.gammaln(x + 5).sum()

    program = Program(imported(fn, ARGS[1]))
    run = lambda x: program.bind(x)[0]  # noqa: E731
    same(jax.value_and_grad(run)(ARGS[1]), jax.value_and_grad(fn)(ARGS[1]))
    stacked = np.stack([ARGS[1], 2 * ARGS[1]])
    same(jax.vmap(jax.grad(run))(stacked), jax.vmap(jax.grad(fn))(stacked))


# ---------------------------------------------------------------------------------- export
@pytest.mark.parametrize("platforms", [("cpu",), ("cpu", "cuda", "tpu")])
def test_export(platforms: tuple[str, ...]) -> None:
    @jax.jit
    def inner(x: Any) -> Any:
        return jnp.linalg.cholesky(x @ x.T + 3 * jnp.eye(3)) @ jax.random.normal(jax.random.key(0), (3, 3))

    def fn(x: Any) -> Any:
        return jnp.sum(inner(inner(x)) ** 2)

    program = Program(imported(fn, ARGS[1]))
    exported = jax.export.export(jax.jit(program.bind), platforms=platforms)(ARGS[1])
    same(exported.call(ARGS[1])[0], fn(ARGS[1]))
    gradient = jax.export.export(jax.jit(jax.grad(lambda x: program.bind(x)[0])), platforms=platforms)(
        ARGS[1]
    )
    same(gradient.call(ARGS[1]), jax.grad(fn)(ARGS[1]))


# ---------------------------------------------------------------------------------- many devices
SHARDED = """
import jax, numpy as np
from stategrad.backend import Program
from stategrad.ir import DerivativeError
from stategrad.importing import import_jaxpr
from stategrad.ir import Names
from jax.sharding import NamedSharding, PartitionSpec as P

def fn(x, w):
    return jax.lax.scan(lambda h, _: (jax.numpy.tanh(h @ w), h.sum()), x, None, length=3)

def gradient(fn, mesh):
    def share(x, w):
        return jax.lax.psum(fn(x, w)[0].sum(), "i")
    total = jax.shard_map(share, mesh=mesh, in_specs=(P("i"), P()), out_specs=P())
    return jax.jit(jax.grad(total, (0, 1)))

x, w = np.arange(8, dtype=np.float32).reshape(4, 2) / 9, np.eye(2, dtype=np.float32)
program = Program(import_jaxpr(jax.make_jaxpr(fn)(x[:2], w), "fn", None, Names()).function)
mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
for found, wanted in zip(gradient(program.bind, mesh)(x, w), gradient(fn, mesh)(x, w), strict=True):
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert found.sharding == wanted.sharding
whole = Program(import_jaxpr(jax.make_jaxpr(fn)(x, w), "fn", None, Names()).function)
sharded = jax.device_put(x, NamedSharding(mesh, P("i")))
assert jax.jit(whole.bind)(sharded, w)[0].sharding.spec == P("i")
"""


def test_sharded_programs() -> None:
    """In a process of its own: the number of devices is fixed when JAX starts."""
    flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", SHARDED], env=flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
