"""Branches, progress and checkpoints with States inside, against plain Python and pure JAX."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.transform import (
    ProgressBar,
    checkpoint,
    checkpointed_for_loop,
    cond,
    for_loop,
    ifelse,
    remat,
    stop_gradient,
    switch,
)

XS = jnp.array([0.5, -1.0, 2.0, 0.3, 0.7, -0.2, 1.1])


def approx(value):
    return pytest.approx(np.asarray(value), rel=1e-5, abs=1e-6)


# -------------------------------------------------------------------------------------------- branches
@pytest.mark.parametrize("compiled", [False, True])
def test_branches(compiled):
    s = sg.State(2.0, name="s")

    def add(x):
        s.value += x
        return s.value

    def multiply(x):
        s.value *= x
        return s.value

    def choose(kind, which, x):
        if kind == "cond":
            return cond(which, add, multiply, x)
        if kind == "switch":
            return switch(which, [add, multiply, lambda x: x], x)
        return ifelse([which > 5, which > 0], [add, multiply, lambda x: x], x)

    call = sg.jit(choose, static_argnums=0) if compiled else choose
    table = [
        ("cond", True, 5.0, 5.0),
        ("cond", 0, 6.0, 6.0),
        ("cond", 0.5, 5.0, 5.0),
        ("switch", -3, 5.0, 5.0),
        ("switch", 1, 6.0, 6.0),
        ("switch", 9, 3.0, 2.0),
        ("ifelse", 7, 5.0, 5.0),
        ("ifelse", 3.0, 6.0, 6.0),
        ("ifelse", -1, 3.0, 2.0),
    ]
    for kind, which, expected, left in table:
        s.value = 2.0
        assert call(kind, which, 3.0) == expected
        assert s.value == left


def test_the_first_condition_that_holds_decides():
    def sign(x):
        return ifelse([x > 5, x > 0, True], [lambda: 2, lambda: 1, lambda: 0])

    assert [int(sign(x)) for x in (9.0, 1.0, -1.0)] == [2, 1, 0]
    assert ifelse(jnp.array([False, False]), [lambda: 1, lambda: 2]) == 2
    assert switch(3, [lambda x: x + 1], 1) == 2


@pytest.mark.parametrize("x", [0.5, 7.0])
def test_gradient_of_branches(x):
    w = sg.State(1.5, name="w")

    def f(x):
        w.value = cond(x > 3, lambda x: x * w.value, lambda x: jnp.sin(w.value), x)
        return ifelse([w.value > 8], [lambda: w.value**2, lambda: w.value * x])

    def pure(w, x):
        w = x * w if x > 3 else jnp.sin(w)
        return w**2 if w > 8 else w * x

    by_w, by_x = sg.grad(f, w, argnums=0)(x)
    expected_w, expected_x = jax.grad(pure, (0, 1))(1.5, x)
    assert (by_w, by_x) == (approx(expected_w), approx(expected_x))


# -------------------------------------------------------------------------------------------- progress
def reports(capfd) -> list[str]:
    jax.effects_barrier()
    return [line for line in capfd.readouterr().err.splitlines() if "|" in line]


@pytest.mark.parametrize("base", [None, 2])
def test_progress_is_reported_once_and_changes_nothing(capfd, base):
    w = sg.State(1.2, name="w")

    def loss(pbar):
        def step(x):
            w.value = jnp.sin(w.value * x)
            return w.value

        if base:
            return checkpointed_for_loop(step, XS, base=base, pbar=pbar).sum()
        return for_loop(step, XS, pbar=pbar).sum()

    bar = ProgressBar(
        freq=3, desc=("step {i}, y {y:.2f}, w {w:.2f}", lambda d: {"i": d["i"], "y": d["y"], "w": w.value})
    )
    gradients = []
    for pbar in (None, bar):
        w.value = 1.2
        gradients.append(sg.grad(functools.partial(loss, pbar), w)())
    assert gradients[0] == gradients[1]
    lines = reports(capfd)
    assert [re.search(r"(\d+)/7", line).group(1) for line in lines] == ["3", "6", "7"]
    assert lines[-1].startswith(f"step 6, y {w.value:.2f}, w {w.value:.2f} 100% |####################| 7/7")


@pytest.mark.parametrize(
    ("pbar", "steps"),
    [
        (ProgressBar(), range(1, 8)),
        (ProgressBar(count=2), [3, 6, 7]),
        (ProgressBar(freq=100, desc="slow"), [7]),
        (5, [5, 7]),
    ],
)
def test_when_progress_is_reported(capfd, pbar, steps):
    sg.jit(lambda: for_loop(lambda x: x, XS, reverse=True, pbar=pbar))()
    assert [int(re.search(r"(\d+)/7", line).group(1)) for line in reports(capfd)] == list(steps)


# -------------------------------------------------------------------------------------------- checkpoint
@pytest.mark.parametrize("decorate", [checkpoint, remat, checkpoint(policy=None, prevent_cse=False)])
def test_checkpoint(decorate):
    s = sg.State(1.0, name="s")

    @decorate
    def f(y):
        out = jnp.sin(y * s.value)
        s.value += 1
        return out

    assert sg.grad(f)(1.0) == approx(np.cos(1.0))
    assert s.value == 2.0
    assert f(1.0) == approx(np.sin(2.0))
    assert s.value == 3.0


def test_checkpoint_of_a_method_with_static_and_named_arguments():
    class Layer:
        def __init__(self):
            self.w, self.sign = sg.State(0.7, name="w"), 1.0

        @checkpoint(static_argnums=1, static_argnames="mode")
        def __call__(self, x, power, *, scale, mode="sin"):
            return self.sign * scale["by"] * getattr(jnp, mode)(x * self.w.value) ** power

    layer = Layer()
    gradient = sg.grad(lambda x: layer(x, 2, scale={"by": x}, mode="cos"))
    expected = jax.grad(lambda x: x * jnp.cos(x * 0.7) ** 2)(1.3)
    assert gradient(1.3) == approx(expected)
    layer.sign = -1.0
    assert gradient(1.3) == approx(-expected)


@pytest.mark.parametrize("nested", [False, True])
def test_what_is_computed_again_prints_once(nested):
    seen = []

    @jax.jit
    def shown(y):
        jax.debug.callback(lambda y: seen.append(round(float(y), 3)), y)
        return y

    @checkpoint
    def f(x):
        ys = for_loop(lambda i: cond(i < 2, lambda: shown(jnp.sin(x * i)), lambda: x), jnp.arange(4.0))
        return ys.sum()

    gradient = sg.grad(checkpoint(lambda x: f(jnp.sin(x))) if nested else f)
    expected = jax.grad(lambda x: jnp.sin(jnp.sin(x) if nested else x) + 2 * (jnp.sin(x) if nested else x))
    assert gradient(0.7) == approx(expected(0.7))
    jax.effects_barrier()
    x = np.sin(0.7) if nested else 0.7
    assert seen == [0.0, approx(round(np.sin(x), 3))]


def test_stop_gradient():
    assert sg.grad(lambda x: x * stop_gradient({"x": x, "n": 3})["x"])(5.0) == 5.0
