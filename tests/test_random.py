"""`stategrad.random`: streams, shapes, types, and that each draw advances the State wherever it happens."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import stategrad
from stategrad import random
from stategrad.random import RandomState

N = 20_000


# ------------------------------------------------------------------ the stream
@pytest.mark.parametrize("seed", [0, 1, 42, 2**31, 2**32 - 1])
def test_a_seed_gives_the_key_that_jax_gives(seed: int) -> None:
    np.testing.assert_array_equal(
        RandomState(seed).value, jax.random.key_data(jax.random.key(np.uint32(seed)))
    )


def test_large_seeds_use_both_words() -> None:
    assert RandomState(5 * 2**32 + 7).value.tolist() == [5, 7]
    assert RandomState(-1).value.tolist() == [2**32 - 1] * 2


def test_a_key_of_jax_is_a_seed() -> None:
    typed, raw = jax.random.key(9), jax.random.key_data(jax.random.key(9))
    for seed in (typed, raw, np.int64(9)):
        np.testing.assert_array_equal(RandomState(seed).value, raw)


@pytest.mark.parametrize("bad", ["seed", 1.5, None, np.zeros(2, np.float32), np.zeros(3, np.uint32)])
def test_what_is_no_seed_is_an_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="a seed is a whole number or one threefry2x32 key"):
        RandomState(bad)


def test_draws_follow_from_the_seed_and_differ_from_each_other() -> None:
    first, second = RandomState(3), RandomState(3)
    draws = [first.normal(size=4) for _ in range(3)]
    np.testing.assert_array_equal(draws, [second.normal(size=4) for _ in range(3)])
    assert len(np.unique(draws)) == 12
    first.seed(3)
    np.testing.assert_array_equal(first.normal(size=4), draws[0])


def test_split_key_gives_one_key_or_many() -> None:
    rng = RandomState(0)
    keys = [rng.split_key(), *rng.split_key(3), rng.split_key()]
    assert all(jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == () for key in keys)
    assert len({tuple(jax.random.key_data(key).tolist()) for key in keys}) == 5


def test_a_key_of_ones_own_leaves_the_state_alone() -> None:
    rng, key = RandomState(0), jax.random.key(5)
    before = rng.value
    np.testing.assert_array_equal(rng.normal(size=3, key=key), jax.random.normal(key, (3,)))
    assert rng.value is before


# ------------------------------------------------------------------ distributions
DISTRIBUTIONS: dict[str, tuple[Any, Any]] = {
    "random": (lambda r: r.random(N), scipy.stats.uniform()),
    "rand": (lambda r: r.rand(N), scipy.stats.uniform()),
    "uniform": (lambda r: r.uniform(-1.0, 3.0, N), scipy.stats.uniform(-1, 4)),
    "randn": (lambda r: r.randn(N), scipy.stats.norm()),
    "normal": (lambda r: r.normal(2.0, 3.0, N), scipy.stats.norm(2, 3)),
    "truncated_normal": (
        lambda r: r.truncated_normal(0.0, 4.0, N, loc=1.0, scale=2.0),
        scipy.stats.truncnorm(-0.5, 1.5, 1, 2),
    ),
    "exponential": (lambda r: r.exponential(2.0, N), scipy.stats.expon(scale=2)),
    "laplace": (lambda r: r.laplace(1.0, 2.0, N), scipy.stats.laplace(1, 2)),
    "gumbel": (lambda r: r.gumbel(1.0, 2.0, N), scipy.stats.gumbel_r(1, 2)),
    "gamma": (lambda r: r.gamma(2.0, 3.0, N), scipy.stats.gamma(2, scale=3)),
    "beta": (lambda r: r.beta(2.0, 3.0, N), scipy.stats.beta(2, 3)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_real_draws_have_the_distribution(name: str) -> None:
    draw, expected = DISTRIBUTIONS[name]
    drawn = draw(RandomState(11))
    assert drawn.shape == (N,)
    assert drawn.dtype == jnp.float32
    assert scipy.stats.kstest(np.asarray(drawn, np.float64), expected.cdf).pvalue > 1e-3


DISCRETE: dict[str, tuple[Any, dict[int, float]]] = {
    "randint": (lambda r: r.randint(2, 6, N), dict.fromkeys(range(2, 6), 0.25)),
    "randint from zero": (lambda r: r.randint(4, size=N), dict.fromkeys(range(4), 0.25)),
    "bernoulli": (lambda r: r.bernoulli(0.3, N), {0: 0.7, 1: 0.3}),
    "poisson": (lambda r: r.poisson(2.0, N), {k: scipy.stats.poisson(2).pmf(k) for k in range(5)}),
    "categorical": (lambda r: r.categorical(jnp.log(jnp.array([0.2, 0.8])), size=N), {0: 0.2, 1: 0.8}),
    "choice": (lambda r: r.choice(3, N, p=jnp.array([0.5, 0.2, 0.3])), {0: 0.5, 1: 0.2, 2: 0.3}),
}


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_draws_have_the_distribution(name: str) -> None:
    draw, expected = DISCRETE[name]
    drawn = np.asarray(draw(RandomState(12)))
    assert drawn.shape == (N,)
    for value, probability in expected.items():
        assert np.mean(drawn == value) == pytest.approx(probability, abs=0.02)


def test_orders_keep_what_is_there() -> None:
    rng = RandomState(0)
    assert sorted(rng.permutation(50).tolist()) == list(range(50))
    x = np.arange(60).reshape(20, 3)
    for shuffled in (rng.permutation(x), rng.shuffle(x)):
        assert sorted(map(tuple, shuffled.tolist())) == list(map(tuple, x.tolist()))
        assert not np.array_equal(shuffled, x)
    chosen = rng.choice(jnp.arange(10.0), (10,), replace=False)
    assert sorted(chosen.tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("draw", "shape"),
    [
        (lambda r: r.normal(), ()),
        (lambda r: r.normal(jnp.zeros((2, 1)), jnp.ones(3)), (2, 3)),
        (lambda r: r.uniform(0, 1, (2, 3)), (2, 3)),
        (lambda r: r.uniform(0, 1, 4), (4,)),
        (lambda r: r.rand(2, 3), (2, 3)),
        (lambda r: r.randn(), ()),
        (lambda r: r.bernoulli(jnp.full((3, 1), 0.5)), (3, 1)),
        (lambda r: r.gamma(jnp.ones(3), jnp.ones((2, 1))), (2, 3)),
        (lambda r: r.categorical(jnp.zeros((2, 5))), (2,)),
        (lambda r: r.categorical(jnp.zeros((2, 5)), axis=0), (5,)),
        (lambda r: r.permutation(jnp.zeros((2, 5)), axis=1, independent=True), (2, 5)),
    ],
)
def test_shapes(draw: Any, shape: tuple[int, ...]) -> None:
    assert draw(RandomState(0)).shape == shape


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_types(dtype: Any) -> None:
    rng = RandomState(0)
    drawn = [
        rng.normal(1.0, 2.0, 3, dtype=dtype),
        rng.rand(2, dtype=dtype),
        rng.exponential(2.0, dtype=dtype),
    ]
    assert {d.dtype for d in drawn} == {jnp.dtype(dtype)}
    assert rng.randint(0, 9, 3, dtype=jnp.uint8).dtype == jnp.uint8


# ------------------------------------------------------------------ the default State
def test_the_functions_are_the_methods_on_the_default_state() -> None:
    assert random.DEFAULT is random.DEFAULT is random.default()
    own = RandomState(123)
    random.seed(123)
    np.testing.assert_array_equal(random.normal(size=5), own.normal(size=5))
    np.testing.assert_array_equal(random.permutation(5), own.permutation(5))
    public = [n for n, f in vars(RandomState).items() if inspect.isfunction(f) and not n.startswith("_")]
    assert [name for name in public if not callable(getattr(random, name, None))] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        random.nothing  # noqa: B018


def test_the_default_state_may_first_be_met_inside_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "_default", [])
    first = stategrad.jit(lambda: random.uniform())()
    second = random.uniform()
    expected = RandomState(0)
    np.testing.assert_array_equal([first, second], [expected.uniform(), expected.uniform()])


# ------------------------------------------------------------------ in programs
def test_compiled_draws_are_the_eager_ones() -> None:
    compiled, eager = RandomState(4), RandomState(4)
    draw = stategrad.jit(lambda: (compiled.normal(size=3), compiled.permutation(4)))
    for _ in range(3):
        normal, order = draw()
        np.testing.assert_allclose(normal, eager.normal(size=3), rtol=1e-6)
        np.testing.assert_array_equal(order, eager.permutation(4))
    np.testing.assert_array_equal(compiled.value, eager.value)


def test_each_step_of_a_loop_draws_anew() -> None:
    compiled, eager = RandomState(4), RandomState(4)

    @stategrad.jit
    def loop() -> jax.Array:
        return jax.lax.scan(lambda c, _: (c, compiled.uniform()), 0, length=5)[1]

    np.testing.assert_array_equal(loop(), [eager.uniform() for _ in range(5)])
    np.testing.assert_array_equal(compiled.value, eager.value)


def test_gradients_see_the_draws_and_advance_the_state() -> None:
    rng, eager = RandomState(4), RandomState(4)
    gradient = stategrad.grad(lambda x: jnp.sum(x * rng.normal(size=3)))
    for _ in range(2):
        np.testing.assert_allclose(gradient(jnp.ones(3)), eager.normal(size=3), rtol=1e-6)
    np.testing.assert_array_equal(rng.value, eager.value)


def test_draws_have_derivatives_by_their_parameters() -> None:
    rng, eager = RandomState(4), RandomState(4)
    by_loc, by_scale = stategrad.grad(lambda loc, scale: rng.normal(loc, scale), argnums=(0, 1))(1.0, 2.0)
    np.testing.assert_allclose([by_loc, by_scale], [1.0, eager.normal()], rtol=1e-6)
