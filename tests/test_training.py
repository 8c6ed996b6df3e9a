"""The training loop of brainstate's tutorial on automatic differentiation, only the import line changed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as brainstate
from stategrad.transform import grad


class LinearRegressor(brainstate.nn.Module):
    def __init__(self, in_features: int, out_features: int = 1):
        super().__init__()
        self.weight = brainstate.ParamState(jnp.zeros((in_features, out_features)))
        self.bias = brainstate.ParamState(jnp.zeros((out_features,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.weight.value + self.bias.value


def train(seed: int):
    brainstate.random.seed(seed)
    training_model = LinearRegressor(1)
    x_train = jnp.linspace(-1.0, 1.0, 20).reshape(-1, 1)
    y_train = 3.0 * x_train + 1.0 + 0.1 * brainstate.random.normal(size=x_train.shape)

    @brainstate.transform.jit
    def training_loss(x, y):
        pred = training_model(x)
        mse = jnp.mean((pred - y) ** 2)
        l2 = 0.01 * (jnp.sum(training_model.weight.value**2) + jnp.sum(training_model.bias.value**2))
        return mse + l2, {"mse": mse, "l2": l2}

    loss_grad_fn = grad(
        training_loss,
        grad_states=training_model.states(brainstate.ParamState),
        has_aux=True,
        return_value=True,
    )
    history = []
    for _ in range(50):
        grads, loss_val, aux = loss_grad_fn(x_train, y_train)
        for path, state in training_model.states(brainstate.ParamState).items():
            state.value = state.value - 0.1 * grads[path]
        history.append((float(loss_val), float(aux["mse"]), float(aux["l2"])))
    return training_model, history


@pytest.mark.parametrize("seed", [0, 1])
def test_reaches_the_printed_numbers(seed):
    model, history = train(seed)
    np.testing.assert_allclose(model.weight.value, [[3.0]], atol=0.15)
    np.testing.assert_allclose(model.bias.value, [1.0], atol=0.1)
    loss, mse, l2 = history[-1]
    assert loss == pytest.approx(mse + l2, rel=1e-5)
    assert loss == pytest.approx(0.1141, abs=0.02), "the tutorial prints 0.1141 with its own noise"
    assert l2 == pytest.approx(0.0959, abs=0.006)
    for (before, *_), (after, *_) in zip(history[::10], history[10::10], strict=False):
        assert after < before
