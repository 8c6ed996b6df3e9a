"""GradientTransform: any JAX-style transform on a function with States."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.transform import GradientTransform

X = jnp.array([1.0, 2.0, -0.5])


def scaled(fun, *, argnums, has_aux, by=2.0):
    base = jax.grad(fun, argnums=argnums, has_aux=has_aux)

    def wrapped(*args, **kwargs):
        grads, aux = base(*args, **kwargs)
        return jax.tree.map(lambda g: by * g, grads), aux

    return wrapped


@pytest.fixture
def w() -> sg.State:
    return sg.State(jnp.array([0.3, 1.0, -2.0]), name="w")


@pytest.fixture
def n() -> sg.State:
    return sg.State(0, name="n")


def loss_of(w, n):
    def loss(x, scale=1.0):
        n.value += 1
        value = jnp.sum(jnp.sin(w.value * x)) * scale
        return value, {"mean": x.mean()}

    return loss


def pure(w, x, scale=1.0):
    return jnp.sum(jnp.sin(w * x)) * scale


def close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("transform", [jax.grad, jax.value_and_grad, scaled])
@pytest.mark.parametrize("by_states", [False, True])
@pytest.mark.parametrize("argnums", [None, 0, (1, 0), [-1], np.int64(0)])
@pytest.mark.parametrize("return_value", [False, True])
def test_every_combination(transform, by_states, argnums, return_value, w, n):
    states = {"w": w} if by_states else None
    made = GradientTransform(
        loss_of(w, n), transform, states, argnums, has_aux=True, return_value=return_value
    )
    found = made(X, 0.5)
    gw, *args = jax.grad(pure, (0, 1, 2))(w.value, X, 0.5)
    if argnums is None:
        by_args = None if by_states else args[0]
    else:
        numbers = argnums if isinstance(argnums, (list, tuple)) else (argnums,)
        by_args = tuple(args[i] for i in numbers)
        by_args = by_args if isinstance(argnums, (list, tuple)) else by_args[0]
    expected = ({"w": gw} if by_args is None else ({"w": gw}, by_args)) if by_states else by_args
    expected = jax.tree.map(lambda g: (2.0 if transform is scaled else 1.0) * g, expected)
    value = [pure(w.value, X, 0.5)] if return_value else []
    close(found, (expected, *value, {"mean": X.mean()}))
    assert n.value == 1, "once for each call"


def test_parameters_keywords_and_closures_of_the_transform(w, n):
    factor = 2.0

    def by_closure(fun, *, argnums, has_aux):
        return scaled(fun, argnums=argnums, has_aux=has_aux, by=factor)

    by_param = GradientTransform(
        loss_of(w, n), scaled, w, has_aux=True, transform_params={"by": jnp.array(3.0)}
    )
    expected = jax.grad(pure)(w.value, X, 0.5)
    close(by_param(X, scale=0.5)[0], 3.0 * expected)
    made = GradientTransform(loss_of(w, n), by_closure, w, has_aux=True)
    close(made(X, scale=0.5)[0], 2.0 * expected)
    factor = 5.0
    close(made(X, scale=0.5)[0], 5.0 * expected)
    step = sg.jit(lambda x: made(x, scale=0.5)[0])
    close(step(X), 5.0 * expected)
    factor = 7.0
    close(step(X), 7.0 * expected)


def test_what_the_transform_sees(w, n):
    """States alone: their container. With arguments: the pair. Without States: the user's own arguments."""
    seen = []

    def spy(fun, *, argnums, has_aux):
        assert has_aux is True

        def wrapped(*args, **kwargs):
            grads, aux = jax.grad(fun, argnums=argnums, has_aux=True)(*args, **kwargs)
            seen.append((argnums, jax.tree.map(jnp.shape, args, is_leaf=lambda a: False), kwargs))
            return grads, aux

        return wrapped

    loss = loss_of(w, n)
    GradientTransform(loss, spy, [w], has_aux=True)(X, 1.0)
    GradientTransform(loss, spy, [w], 0, has_aux=True)(X, 1.0)
    GradientTransform(loss, spy, [w], (1, 0), has_aux=True)(X, 1.0)
    GradientTransform(loss, spy, None, (1,), has_aux=True)(X, 1.0)
    GradientTransform(loss, spy, None, has_aux=True)(X, scale=1.0)
    assert [(argnums, args) for argnums, args, _ in seen] == [
        (0, ([(3,)], (3,), ())),
        (0, (([(3,)], (3,)), ())),
        (0, (([(3,)], ((), (3,))),)),
        ((1,), ((3,), ())),
        (0, ((3,),)),
    ]
    assert list(seen[-1][2]) == ["scale"]


def test_a_global_norm_counts_each_state_once(w, n):
    def normalised(fun, *, argnums, has_aux):
        def wrapped(*args):
            grads, aux = jax.grad(fun, argnums=argnums, has_aux=True)(*args)
            norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
            return jax.tree.map(lambda g: g / norm, grads), aux

        return wrapped

    expected = jax.grad(pure)(w.value, X)
    expected = expected / jnp.linalg.norm(expected)
    loss = loss_of(w, n)
    close(GradientTransform(loss, normalised, [w, w], has_aux=True)(X)[0], [expected] * 2)
    mixed = {1: w, "one": w, ("a", 2): None}
    found, _ = GradientTransform(loss, normalised, mixed, has_aux=True)(X)
    assert list(found) == list(mixed) and found["a", 2] is None
    close([found[1], found["one"]], [expected] * 2)


@pytest.mark.parametrize("transform", [jax.jacrev, jax.jacfwd])
def test_jacobians(transform, w):
    tree = sg.State({"a": jnp.array(2.0), "b": jnp.array([1.0, 3.0])}, name="tree")

    def f(x):
        tree.value = {**tree.value, "a": tree.value["a"] * x[0]}
        return {"y": w.value[:2] * x[:2] * tree.value["a"], "z": tree.value["b"].sum() * x}

    def g(both, x):
        w, tree = both
        return {"y": w[:2] * x[:2] * tree["a"] * x[0], "z": tree["b"].sum() * x}

    before = {"a": jnp.array(2.0), "b": jnp.array([1.0, 3.0])}
    expected = transform(lambda p: g(*p))(((w.value, before), X))
    close(GradientTransform(f, transform, (w, tree), 0)(X), expected)
    np.testing.assert_allclose(tree.value["a"], 2.0 * X[0])


def test_around_and_inside_of_other_transforms(w, n):
    read = GradientTransform(lambda x: jnp.sum(jnp.sin(w.value * x)), scaled)
    made = GradientTransform(lambda x: loss_of(w, n)(x)[0], scaled, argnums=0)
    expected = 2 * jax.jacrev(jax.grad(lambda x: pure(w.value, x)))(X)
    close(jax.jacrev(read)(X), expected)
    close(jax.vmap(read)(jnp.stack([X, X]))[1], 2 * jax.grad(lambda x: pure(w.value, x))(X))
    close(sg.jit(made)(X), 2 * jax.grad(lambda x: pure(w.value, x))(X))
    close(sg.grad(lambda x: made(x).sum())(X), expected.sum(0))
    twice = GradientTransform(lambda x: made(x).sum(), scaled, w)
    mixed = jax.jacrev(lambda w: 4 * jax.grad(pure, 1)(w, X).sum())(w.value)
    before = int(n.value)
    close(twice(X), mixed)
    assert n.value == before + 1


def test_methods_decorators_and_looks(w):
    @GradientTransform(transform=jax.grad, return_value=True)
    def square(x):
        """A square."""
        return x**2

    assert square(3.0) == (6.0, 9.0)
    assert square.__name__ == "square" and square.__doc__ == "A square."
    assert list(inspect.signature(square).parameters) == ["x"]
    assert square.target is square.__wrapped__ and square.stateful_target(3.0) == 9.0
    assert repr(square) == (
        "GradientTransform(square, transform=grad, states: none, argnums=0, return_value=True)"
    )
    assert "states: w, argnums=(0,)" in repr(GradientTransform(square.target, scaled, [w], [0]))

    class Model:
        def __init__(self, k):
            self.k = sg.State(k, name="k")

        @functools.partial(GradientTransform, transform=scaled)
        def slope(self, x):
            self.k.value += 1.0
            return self.k.value * x**2

    one, two = Model(1.0), Model(5.0)
    assert one.slope(3.0) == 24.0 and two.slope(3.0) == 72.0 and one.slope(3.0) == 36.0
    assert (one.k.value, two.k.value) == (3.0, 6.0)


def test_static_arguments(w):
    made = GradientTransform(
        lambda x, kind: jnp.sum(getattr(jnp, kind)(w.value * x)), scaled, w, static_argnums=1
    )
    close(made(X, "sin"), 2 * jax.grad(pure)(w.value, X))


def test_a_state_that_changes_its_structure(w):
    def f(x):
        w.value = {"old": w.value, "x": x}
        return jnp.sum(w.value["old"] * x)

    np.testing.assert_allclose(GradientTransform(f, scaled, w)(X), 2 * X)
    np.testing.assert_allclose(w.value["x"], X)


def test_lowering_shows_the_whole_program(w):
    made = GradientTransform(lambda x: jnp.sum(w.value * x), scaled, w)
    assert "dense<2.0" in made.lower(X).as_text() or "2.0" in str(made.trace(X))


def no_function(fun, *, argnums, has_aux):
    return 3.0


def no_aux(fun, *, argnums, has_aux):
    return lambda *args: jax.grad(fun, argnums=argnums, has_aux=True)(*args)[0]


def batched_aux(fun, *, argnums, has_aux):
    base = jax.grad(fun, argnums=argnums, has_aux=True)
    return lambda x: jax.vmap(base)(jnp.stack([x, x]))


def other_arguments(fun, *, argnums, has_aux):
    return lambda x: jax.grad(fun, argnums=argnums, has_aux=True)((x, x))


def text_as_gradient(fun, *, argnums, has_aux):
    return lambda x: ("steep", fun(x)[1])


@pytest.mark.parametrize(
    ("transform", "error", "message"),
    [
        (no_function, sg.GradientError, "transform no_function of loss must return a function .* not 3.0"),
        (no_aux, sg.GradientError, r"no_aux of loss must return .*\(gradients, aux\)"),
        (batched_aux, sg.GradientError, r"aux of one call, as it was given: float32\[\], not float32\[2\]"),
        (other_arguments, sg.GradientError, r"the transform of loss called it with"),
        (text_as_gradient, sg.TraceError, "'steep'"),
        (None, sg.GradientError, "transform of GradientTransform is None"),
    ],
    ids=lambda p: getattr(p, "__name__", None),
)
def test_transforms_that_do_something_else(transform, error, message, n):
    def loss(x):
        n.value += 1
        return jnp.sum(x**2)

    with pytest.raises(error, match=message):
        GradientTransform(loss, transform)(X)
    assert n.value == 0


@pytest.mark.parametrize("transform", [jax.grad, scaled])
def test_debug_nan_commits_nothing(transform, w, n):
    def loss(x):
        n.value += 1
        return jnp.sum(jnp.sqrt(w.value) * x)

    w.value = jnp.array([1.0, 0.0, 4.0])
    with pytest.raises(sg.NonFiniteError, match="div"):
        GradientTransform(loss, transform, w, debug_nan=True)(X)
    assert n.value == 0
    close(
        GradientTransform(loss, transform, argnums=0, debug_nan=True)(X),
        jnp.array([1.0, 0.0, 2.0]) * (2.0 if transform is scaled else 1.0),
    )
    assert n.value == 1


def test_third_order_and_settings_of_jax(w):
    def f(x):
        return jnp.sin(x) * x**2

    def nested(f, transform):
        return transform(transform(transform(f)))

    found = nested(f, lambda f: GradientTransform(f, scaled, transform_params={"by": 1.0}))(0.7)
    np.testing.assert_allclose(found, nested(f, jax.grad)(0.7), rtol=1e-5)
    made = GradientTransform(lambda x: jnp.sum(w.value * x), scaled, w)
    with jax.disable_jit():
        close(made(X), 2 * X)
    with jax.numpy_rank_promotion("raise"):
        close(made(X), 2 * X)
