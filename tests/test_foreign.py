"""Foreign operations: the rules that JAX has for a primitive, as ours. JAX itself is the truth."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from stategrad.backend import compile_function
from stategrad.importing import foreign_op, import_jaxpr
from stategrad.ir import Builder, DerivativeError, Names, Type, Value, lookup, walk
from stategrad.ir.evaluate import evaluate
from stategrad.passes import gradient_function, jvp_function, thread_function

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 4))
V = X[0]
A = X @ X.T + 4 * jnp.eye(4)


@jax.custom_jvp
def halved(x, y):
    """Its rule says half of the true derivative by x, and nothing by y."""
    return jnp.sin(x) * y


halved.defjvp(lambda primals, tangents: (halved(*primals), 0.5 * jnp.cos(primals[0]) * tangents[0]))


@jax.custom_vjp
def clipped(x):
    return x * 2


clipped.defvjp(lambda x: (clipped(x), x), lambda x, ct: (jnp.clip(ct * x, -0.1, 0.1),))


@jax.custom_jvp
def looping(x):
    return lax.scan(lambda c, _: (jnp.sin(c), None), x, None, length=3)[0]


@looping.defjvp
def looping_jvp(primals, tangents):
    def step(carry, _):
        x, t = carry
        return (jnp.sin(x), jnp.cos(x) * t), None

    return lax.scan(step, (*primals, *tangents), None, length=3)[0]


@jax.custom_jvp
def branching(x):
    return x**2


@branching.defjvp
def branching_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return branching(x), lax.cond(x.sum() > 0, lambda x, t: 2 * x * t, lambda x, t: jnp.exp(x) * t, x, t)


FUNCTIONS = {
    "cumlogsumexp": (lax.cumlogsumexp, V),
    "cholesky": (jnp.linalg.cholesky, A),
    "qr": (jnp.linalg.qr, A),
    "svd": (lambda a: jnp.linalg.svd(a)[1], A),
    "eigh": (lambda a: jnp.linalg.eigh(a)[0], A),
    "solve": (jnp.linalg.solve, A, V),
    "slogdet": (lambda a: jnp.linalg.slogdet(a)[1], A),
    "fft": (lambda x: jnp.abs(jnp.fft.fft(x)), V),
    "top_k": (lambda x: lax.top_k(x, 2), X),
    "max_pool": (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"), X),
    "gamma": (lambda a: jax.random.gamma(KEY, jnp.abs(a)), V),
    "betainc": (lambda x: jax.scipy.special.betainc(1.0, 2.0, jax.nn.sigmoid(x)), V),
    "relu": (jax.nn.relu, X),
    "custom_jvp": (halved, X, V),
    "custom_vjp": (clipped, V),
    "conjugate gradient": (lambda a, b: jax.scipy.sparse.linalg.cg(lambda v: a @ v, b)[0], A, V),
    "a loop in a rule": (looping, V),
    "a branch in a rule": (branching, V),
    "in a scan": (lambda x: lax.scan(lambda c, y: (jax.nn.relu(c * y), jax.nn.softplus(c)), x[0], x), X),
}
SMOOTH = [name for name in FUNCTIONS if name not in ("top_k", "gamma")]


def imported(function, *args):
    return import_jaxpr(jax.make_jaxpr(function)(*args), "f", None, Names()).function


def pure(function):
    return compile_function(thread_function(function).function)


def same(found, wanted, rtol=2e-4):
    for x, y in zip(found, jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=2e-5)


def floats(function):
    """The function with only those results that have a derivative."""
    return lambda *args: [y for y in jax.tree.leaves(function(*args)) if jnp.issubdtype(y.dtype, jnp.inexact)]


def seeds(values):
    return [jax.random.normal(jax.random.key(i + 5), x.shape, x.dtype) for i, x in enumerate(values)]


@pytest.mark.parametrize("case", [name for name in FUNCTIONS if name != "custom_vjp"])
def test_tangents_are_those_of_jax(case):
    function, *args = FUNCTIONS[case]
    function = floats(function)
    found = pure(jvp_function(imported(function, *args), range(len(args))))(*args, *seeds(args))
    same(found, jax.jvp(function, tuple(args), tuple(seeds(args))))


@pytest.mark.parametrize("case", FUNCTIONS)
def test_cotangents_are_those_of_jax(case):
    function, *args = FUNCTIONS[case]
    function = floats(function)
    results, pull = jax.vjp(function, *args)
    found = pure(gradient_function(imported(function, *args), range(len(args))))(*args, *seeds(results))
    same(found[len(results) :], pull(seeds(results)))


@pytest.mark.parametrize("case", ["cumlogsumexp", "cholesky", "relu", "custom_jvp", "slogdet"])
def test_second_derivatives_are_those_of_jax(case):
    function, *args = FUNCTIONS[case]

    def scalar(x):
        return sum(jnp.sum(jnp.sin(y)) for y in floats(function)(x, *args[1:]))

    x = args[0]
    gradient = gradient_function(imported(scalar, x), [0])
    again = jvp_function(thread_function(gradient).function, [0], results=[1])
    (t,) = seeds([x])
    found = pure(again)(x, jnp.ones(()), t)
    same(found[1:], jax.jvp(jax.grad(scalar), (x,), (t,)))


# ----------------------------------------------------------------------------------- one operation at a time
def single(function, *args):
    """The only foreign operation of an imported function."""
    (op,) = [op for op in walk(imported(function, *args).body) if op.name.startswith("jax.")]
    return op


@pytest.mark.parametrize("batched", [(True, True), (True, False), (False, True)])
def test_batching_is_that_of_jax(batched):
    args = (jnp.abs(V) + 0.5, jnp.linspace(0.1, 0.9, 4))
    op = single(lax.igamma, *args)
    b = Builder()
    params = [
        Value(v.type.batched(3) if flag else v.type) for v, flag in zip(op.operands, batched, strict=True)
    ]
    results = op.opdef.batch_of(b, op, params, batched)
    stacked = [jnp.stack([x, x + 1, x + 2]) if flag else x for x, flag in zip(args, batched, strict=True)]
    axes = tuple(0 if flag else None for flag in batched)
    found = compile_function(b.function("f", params, results))(*stacked)
    same(found, jax.vmap(lax.igamma, axes)(*stacked))


def test_a_rule_is_traced_once_for_each_pattern():
    calls = []

    @jax.custom_jvp
    def counted(x, y):
        return x * y

    @counted.defjvp
    def rule(primals, tangents):
        calls.append(1)
        (x, y), (dx, dy) = primals, tangents
        return x * y, dx * y + x * dy

    program = imported(lambda x, y: counted(x, y), V, V)
    for _ in range(3):
        gradient_function(program, [0, 1])
    assert len(calls) == 1


def test_primal_results_are_not_computed_again():
    program = imported(jnp.linalg.qr, A)
    ops = [op.name for op in walk(gradient_function(program, [0]).body)]
    assert ops.count("jax.qr") == 1


def test_only_the_forward_rule_of_a_custom_vjp_runs():
    function = jax.custom_vjp(lambda x: jnp.exp(x))
    function.defvjp(lambda x: ((y := jnp.exp(x)), y), lambda y, ct: (ct * y,))
    program = gradient_function(imported(lambda x: function(x), V), [0])
    ops = [op.name for op in walk(program.body)]
    assert ops.count("exp") == 1
    assert "jax.custom_vjp_call" not in ops
    forward = {str(op.location) for op in walk(program.body) if op.name == "exp"}
    assert not any("linearize" in place for place in forward)


def test_what_jax_cannot_differentiate_is_an_error_with_the_line():
    def function(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((4,), np.float32), x)

    with pytest.raises(
        DerivativeError, match=r"no derivative for jax\.pure_callback .*test_foreign\.py.*custom_jvp"
    ):
        gradient_function(imported(function, V), [0])


def test_forward_mode_through_custom_vjp_is_an_error():
    program = jvp_function(imported(lambda x: clipped(x) + 1, V), [0])
    with pytest.raises(
        DerivativeError, match=r"jax\.custom_vjp .*test_foreign\.py.* forward mode; use reverse mode"
    ):
        pure(program)(V, V)
    with pytest.raises(DerivativeError, match="forward mode"):
        evaluate(thread_function(program).function, [np.asarray(V), np.asarray(V)])


# ------------------------------------------------------------------------------------------- by name
def test_operations_are_found_by_name():
    op = single(lax.cumlogsumexp, V)
    assert lookup("jax.cumlogsumexp") is op.opdef
    assert lookup("jax.no_such_primitive") is None
    assert op.opdef.infer([Type.parse("f32[7]")], op.attributes, ()) == (Type.parse("f32[7]"),)


def test_primitives_of_one_name_are_told_apart():
    first, second = (jax.extend.core.Primitive("twin") for _ in range(2))
    assert foreign_op(first) is foreign_op(first)
    assert {foreign_op(first).name, foreign_op(second).name} == {"jax.twin", "jax.twin_2"}
