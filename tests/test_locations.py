"""Every operation of a traced program leads to a line of the user's, before and after each pass."""

import jax
import jax.numpy as jnp
import pytest

import stategrad as sg
from stategrad.ir import Source, walk
from stategrad.passes import Verify

W = sg.State(jnp.array([1.0, 2.0]), name="w")
N = sg.State(0, name="n")


def in_a_scan(x):
    def body(c, xi):
        N.value += 1
        W.value = jnp.tanh(W.value * xi)
        return c + W.value.sum(), W.value

    total, ys = jax.lax.scan(body, 0.0, x)
    return total + ys.sum()


def in_branches(x):
    return jax.lax.cond(x[0] > 0, lambda: W.value.sum() * x[1], lambda: x.sum() ** 2)


def in_a_checkpoint(x):
    return jax.checkpoint(lambda y: jnp.sum(jnp.sin(y) * W.value[0]))(x)


def in_a_nested_jit(x):
    inner = jax.jit(lambda y: jax.nn.relu(y * W.value[0]))
    return jnp.sum(inner(x) + inner(2 * x)) + jax.scipy.special.logsumexp(x)


def with_draws(x):
    return jnp.sum(x * sg.random.normal(size=x.shape))


@pytest.mark.parametrize("loss", [in_a_scan, in_branches, in_a_checkpoint, in_a_nested_jit, with_draws])
@pytest.mark.parametrize("transform", [sg.jit, sg.grad])
def test_every_operation_leads_to_the_user(loss, transform):
    staging = transform(loss).trace(jnp.arange(3.0))
    staged = staging.run_passes(Verify(locations=True))
    for op in walk(staged.program.function.body):
        assert isinstance(op.location.source, Source)
        assert op.location.source.file.endswith(("test_locations.py", "random.py")), op
