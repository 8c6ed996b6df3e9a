"""Modules, the States found in them, filters, and the layers."""

import functools
import textwrap
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad
from stategrad import ParamState, State, graph, nn
from stategrad.filters import to_predicate
from stategrad.random import RandomState


class Block(nn.Module):
    """Attributes of every kind that may hold States."""

    def __init__(self) -> None:
        self.layers = [nn.Linear(2, 3), nn.Linear(3, 1, use_bias=False)]
        self.named = {"b": State(jnp.zeros(2)), "a": ParamState(jnp.ones(()), name="alpha")}
        self.pair = (State(jnp.zeros(1), tag="cache"), "text")
        self.tied = self.layers[0].weight
        self.rate = 0.5
        self.activation = jax.nn.relu


@dataclass
class Holder:
    """Not a Module."""

    inner: Any
    count: int = 3


class Slotted:
    __slots__ = ("absent", "state")

    def __init__(self) -> None:
        self.state = State(jnp.zeros(1))


PATHS = [
    ("layers", 0, "bias"),
    ("layers", 0, "weight"),
    ("layers", 1, "weight"),
    ("named", "a"),
    ("named", "b"),
    ("pair", 0),
]


# ------------------------------------------------------------------ finding States
def test_states_come_by_path_in_order_each_once() -> None:
    block = Block()
    found = block.states()
    assert list(found) == PATHS
    assert found["layers", 0, "weight"] is block.tied
    assert all(isinstance(state, State) for state in found.values())


def test_bias_comes_before_weight() -> None:
    assert list(nn.Linear(1, 1).states(ParamState)) == [("bias",), ("weight",)]


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        (ParamState, PATHS[:4]),
        ("cache", PATHS[5:]),
        (..., PATHS),
        (True, PATHS),
        (False, []),
        (None, []),
        (lambda path, state: path[-1] == "weight", PATHS[1:3]),
        ([ParamState, "cache"], [*PATHS[:4], PATHS[5]]),
        (("cache", [lambda path, state: "b" in path]), PATHS[4:]),
        ([], []),
    ],
)
def test_one_filter_selects(filter: Any, expected: list[Any]) -> None:
    assert list(Block().states(filter)) == expected


def test_several_filters_share_out_the_states() -> None:
    parameters, cached, rest = Block().states(ParamState, "cache", ...)
    assert (list(parameters), list(cached), list(rest)) == (PATHS[:4], PATHS[5:], PATHS[4:5])


@pytest.mark.parametrize("bad", [3, 1.5, object(), {"a": 1}])
def test_what_is_no_filter_is_an_error(bad: Any) -> None:
    with pytest.raises(TypeError, match=r"is no filter: expected a type of State, a tag"):
        to_predicate(bad)


def test_treefy_states_nests_and_flattens_back() -> None:
    block = Block()
    nested = graph.treefy_states(block, ParamState)
    assert nested["layers"][0]["weight"] is block.tied
    assert nested.to_flat() == block.states(ParamState)
    assert nested.to_flat().to_nested() == nested
    first, second = graph.treefy_states(block, "cache", ...)
    assert list(first.to_flat()) == PATHS[5:]
    assert list(second.to_flat()) == PATHS[:5]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda s: {"x": s, 3: [s]}, [("x",)]),
        (lambda s: [1, (s,)], [(1, 0)]),
        (lambda s: Holder(s), [("inner",)]),
        (lambda s: Holder(Holder({"k": s})), [("inner", "inner", "k")]),
        (lambda s: s, [()]),
        (lambda s: jnp.zeros(2), []),
        (lambda s: lambda: s, []),
    ],
)
def test_states_are_found_in_any_object(make: Any, expected: list[Any]) -> None:
    assert list(graph.states(make(State(jnp.zeros(1))))) == expected


def test_states_are_found_in_slots() -> None:
    assert list(graph.states(Slotted())) == [("state",)]


def test_objects_that_contain_themselves_are_walked_once() -> None:
    loop = Holder(None)
    loop.inner = [State(jnp.zeros(1)), loop]
    assert list(graph.states(loop)) == [("inner", 0)]


def test_a_state_alone_has_no_nested_form() -> None:
    with pytest.raises(ValueError, match="the path \\(\\) is empty"):
        graph.treefy_states(State(1.0))
    with pytest.raises(ValueError, match="leads on from where another one ends"):
        graph.FlatStates({("a",): 1, ("a", "b"): 2}).to_nested()


@pytest.mark.parametrize("kind", [graph.FlatStates, graph.NestedStates])
def test_mappings_are_pytrees_in_their_own_order(kind: Any) -> None:
    mapping = kind({("b", 1): 1.0, ("b", "x"): 2.0, ("a",): 3.0})  # keys that cannot be sorted
    doubled = jax.tree.map(lambda v: 2 * v, mapping)
    assert type(doubled) is kind
    assert list(doubled.items()) == [(("b", 1), 2.0), (("b", "x"), 4.0), (("a",), 6.0)]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(mapping)]
    assert paths[0] == "[('b', 1)]"


# ------------------------------------------------------------------ names and repr
def test_states_are_named_by_their_path_in_the_outermost_module() -> None:
    block = Block()
    names = [state.name for state in block.states().values()]
    assert names == ["layers.0.bias", "layers.0.weight", "layers.1.weight", "alpha", "named.b", "pair.0"]
    assert [state.name for state in nn.Sequential(block).states().values()][:2] == [
        "layers.0.layers.0.bias",
        "layers.0.layers.0.weight",
    ]


class Optimizer(nn.Module):
    """Holds the States of another Module without owning them."""

    def __init__(self, model: nn.Module) -> None:
        self.by_path = model.states()
        self.in_a_row = list(self.by_path.values())
        self.velocity = State(jnp.zeros(1))


def test_who_only_refers_to_a_state_does_not_name_it() -> None:
    block = Block()
    before = [state.name for state in block.states().values()]
    optimizer = Optimizer(block)
    assert [state.name for state in block.states().values()] == before
    assert optimizer.velocity.name == "velocity"


def test_a_module_prints_as_a_person_reads_it() -> None:
    expected = """\
        Block(
          activation=relu,
          layers=[
            Linear(
              bias=ParamState('layers.0.bias', float32[3]),
              weight=ParamState('layers.0.weight', float32[2,3]),
            ),
            Linear(
              bias=None,
              weight=ParamState('layers.1.weight', float32[3,1]),
            ),
          ],
          named={
            'a': ParamState('alpha', float32[]),
            'b': State('named.b', float32[2]),
          },
          pair=(
            State('pair.0', float32[1]),
            'text',
          ),
          rate=0.5,
          tied=ParamState('layers.0.weight', float32[2,3]),
        )"""
    assert repr(Block()) == textwrap.dedent(expected)


def test_modules_that_contain_themselves_and_mappings_print() -> None:
    block = nn.Sequential()
    block.layers = [block]
    assert repr(block) == "Sequential(\n  layers=[\n    <Sequential again>,\n  ],\n)"
    assert repr(nn.Linear(1, 2, use_bias=False).states()) == (
        "{\n  ('weight',): ParamState('weight', float32[1,2]),\n}"
    )
    assert repr(graph.FlatStates()) == "{}"


# ------------------------------------------------------------------ layers
def test_linear_multiplies_and_adds() -> None:
    layer = nn.Linear(3, 2, rng=RandomState(1))
    assert layer.bias is not None
    layer.bias.value = jnp.array([1.0, -1.0])
    x = np.arange(12.0, dtype=np.float32).reshape(2, 2, 3)
    np.testing.assert_allclose(layer(x), x @ np.asarray(layer.weight.value) + [1, -1], rtol=1e-6)
    assert nn.Linear(3, 2, dtype=jnp.bfloat16).weight.value.dtype == jnp.bfloat16


def test_linear_starts_from_its_own_draws() -> None:
    first, again = (nn.Linear(400, 50, rng=RandomState(7)).weight.value for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.std(first), np.sqrt(2 / 400), rtol=0.05)


def test_batch_norm_normalises_the_batch_and_moves_the_running_statistics() -> None:
    norm = nn.BatchNorm(3, momentum=0.75)
    x = np.random.default_rng(0).normal(2, 3, (5, 4, 3)).astype(np.float32)
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    np.testing.assert_allclose(
        norm(x, training=True), (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(norm.mean.value, 0.25 * mean, rtol=1e-5)
    np.testing.assert_allclose(norm.variance.value, 0.75 + 0.25 * variance, rtol=1e-5)


def test_batch_norm_outside_of_training_uses_the_running_statistics_and_changes_nothing() -> None:
    norm = nn.BatchNorm(2)
    norm.mean.value, norm.variance.value = jnp.array([1.0, 2.0]), jnp.array([4.0, 9.0])
    norm.scale.value, norm.shift.value = jnp.array([2.0, 3.0]), jnp.array([0.5, -0.5])
    before = [state.value for state in norm.states().values()]
    np.testing.assert_allclose(norm(jnp.array([[3.0, 8.0]]), training=False), [[2.5, 5.5]], rtol=1e-4)
    assert all(state.value is value for state, value in zip(norm.states().values(), before, strict=True))


def test_dropout_keeps_the_mean_and_draws_anew() -> None:
    drop = nn.Dropout(0.25, rng=RandomState(3))
    x = jnp.ones((100, 100))
    first, second = drop(x, training=True), drop(x, training=True)
    np.testing.assert_allclose(np.unique(first), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(np.mean(first), 1, atol=0.03)
    assert np.any(first != second)
    assert drop(x, training=False) is x
    assert nn.Dropout(0.0)(x, training=True) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan")])
def test_dropout_refuses_other_rates(rate: float) -> None:
    with pytest.raises(ValueError, match=r"a rate in \[0, 1\)"):
        nn.Dropout(rate)


def test_sequential_calls_one_after_the_other() -> None:
    model = nn.Sequential(nn.Linear(2, 3), jax.nn.relu, nn.Linear(3, 1))
    first, last = model.layers[0], model.layers[2]
    x = jnp.array([[1.0, -2.0]])
    np.testing.assert_array_equal(model(x), last(jax.nn.relu(first(x))))
    assert [path[:2] for path in model.states()] == [("layers", 0)] * 2 + [("layers", 2)] * 2


# ------------------------------------------------------------------ gradients
def test_gradients_have_the_form_of_what_was_asked_for() -> None:
    model = nn.Sequential(nn.Linear(2, 3, rng=RandomState(0)), nn.Linear(3, 1, rng=RandomState(1)))
    x = jnp.ones((4, 2))

    def loss() -> jax.Array:
        return jnp.sum(model(x) ** 2)

    flat, nested = model.states(ParamState), graph.treefy_states(model, ParamState)
    by_path = stategrad.grad(loss, grad_states=flat)()
    assert type(by_path) is graph.FlatStates
    assert list(by_path) == list(flat)
    for same in (
        stategrad.grad(loss, grad_states=model)(),
        stategrad.grad(loss, grad_states=nested)().to_flat(),
    ):
        jax.tree.map(np.testing.assert_array_equal, by_path, same)

    def pure(values: Any) -> jax.Array:
        hidden = x @ values[1] + values[0]
        return jnp.sum((hidden @ values[3] + values[2]) ** 2)

    expected = jax.grad(pure)([state.value for state in flat.values()])
    for ours, theirs in zip(by_path.values(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_running_statistics_carry_no_derivative_and_are_committed_once() -> None:
    norm = nn.BatchNorm(2, momentum=0.5)
    x = jnp.array([[1.0, 2.0], [3.0, 6.0]])
    stategrad.grad(lambda x: jnp.sum(norm(x, training=True) ** 3))(x)
    np.testing.assert_allclose(norm.mean.value, [1.0, 2.0])
    by_mean = stategrad.grad(
        lambda: jnp.sum(norm(x, training=False)) + jnp.sum(norm(x, training=True)), grad_states=norm.mean
    )()
    np.testing.assert_allclose(by_mean, -2 / np.sqrt(norm_variance_before() + 1e-5), rtol=1e-5)


def norm_variance_before() -> np.ndarray:
    """The running variance after one training call on the batch above: half of 1, half of the batch's."""
    return 0.5 + 0.5 * np.array([1.0, 4.0])


def test_a_compiled_step_with_a_layer_of_each_kind_agrees_with_the_eager_one() -> None:
    def build() -> tuple[Any, Any]:
        rng = RandomState(5)
        layers = [nn.Linear(3, 4, rng=rng), nn.BatchNorm(4), nn.Dropout(0.5, rng=rng)]

        def forward(x: Any) -> jax.Array:
            linear, norm, drop = layers
            return drop(norm(linear(x), training=True), training=True)

        return layers, forward

    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    (eager_layers, eager), (layers, forward) = build(), build()
    compiled = stategrad.jit(forward)
    for _ in range(2):
        np.testing.assert_allclose(compiled(x), eager(x), rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(graph.walk(layers), graph.walk(eager_layers), strict=True):
        np.testing.assert_allclose(ours[1].value, theirs[1].value, rtol=1e-5)


def test_states_inside_of_transformed_functions_and_partials():
    class Net(nn.Module):
        def __init__(self):
            self.inner = stategrad.checkpoint(nn.Linear(2, 2))
            self.norm = functools.partial(nn.BatchNorm(2), training=True)
            self.compiled = stategrad.jit(self.forward)
            self.slope = stategrad.grad(self.forward, grad_states=self.inner.__wrapped__.weight)

        def forward(self, x):
            return jnp.sum(self.norm(self.inner(x)) ** 3)

    net = Net()
    paths = list(net.states(stategrad.ParamState))
    assert paths == [
        ("inner", "bias"),
        ("inner", "weight"),
        ("norm", "func", "scale"),
        ("norm", "func", "shift"),
    ]
    x = jnp.array([[1.0, 2.0], [3.0, 5.0]])
    net.compiled(x), net.slope(x)
    assert list(net.states(stategrad.ParamState)) == paths  # whatever was compiled since
    assert {s.name for s in net.states().values()} >= {"inner.weight", "norm.func.scale"}


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_the_layers_without_rank_promotion(shape):
    net = nn.Sequential(
        nn.Linear(4, 4),
        nn.Sequential(nn.BatchNorm(4), jnp.tanh),
        functools.partial(nn.BatchNorm(4), training=False),
        nn.Dropout(0.5, rng=RandomState(1)),
        nn.Linear(4, 2, use_bias=False),
    )

    def loss(x):
        return jnp.mean(net(x, training=True) ** 2)

    x = jnp.arange(float(np.prod(shape))).reshape(shape)
    with jax.numpy_rank_promotion("raise"):
        value, gradients = stategrad.value_and_grad(loss, grad_states=net.states(ParamState))(x)
        mapped = stategrad.vmap(nn.Linear(4, 3))(x[None])
        curvature = stategrad.hessian(loss)(x)
    assert jnp.isfinite(value) and mapped.shape == (1, *shape[:-1], 3) and curvature.shape == shape + shape
    assert all(
        g.shape == s.value.shape
        for g, s in zip(gradients.values(), net.states(ParamState).values(), strict=True)
    )
    np.testing.assert_array_equal(*(net(x, training=False) for _ in range(2)))  # nothing is dropped
    linear = nn.Linear(4, 2)
    linear.bias.value = jnp.array([1.0, -1.0])
    expected = np.asarray(x) @ np.asarray(linear.weight.value) + np.array([1.0, -1.0])
    np.testing.assert_allclose(linear(x), expected, rtol=1e-5)
