"""The documents that describe the API: their code blocks in order, with only the import lines changed.

They stand in the folder `seeds`. A block prints what the document says that it prints; numbers may differ in
the last digits. Where a document says two things, or what it prints depends on random numbers, the test says
so.
"""

import contextlib
import doctest
import inspect
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg

SEEDS = Path(__file__).with_name("seeds")
BLOCK = re.compile(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", re.DOTALL)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[-+]?\d+)?")


def run(code: str, name: str, mode: str, namespace: dict[str, Any]) -> str:
    """Runs code and gives what it prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, name, mode), namespace)
    return printed.getvalue()


def steps(path: Path) -> Iterator[tuple[str, str, str]]:
    """Each step of a document: code, mode to compile it in, what it prints."""
    text = path.read_text()
    if path.suffix == ".md":
        yield from ((code, "exec", printed) for code, printed in BLOCK.findall(text))
    else:
        for example in doctest.DocTestParser().get_examples(text):
            yield example.source, "single", example.want


def skeleton(printed: str) -> str:
    """What is printed, without its numbers and the spaces that line them up."""
    return re.sub(r"\s*#\s*", "#", re.sub(r"\s+", " ", NUMBER.sub("#", printed)))


def check(printed: str, expected: str, **tolerance: float) -> None:
    assert skeleton(printed) == skeleton(expected)
    found, wanted = ([float(n) for n in NUMBER.findall(text)] for text in (printed, expected))
    np.testing.assert_allclose(found, wanted, **tolerance)


def play(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Runs a document from top to bottom; gives its names."""
    monkeypatch.setattr(sys, "displayhook", lambda x: None if x is None else print(repr(x)))
    namespace: dict[str, Any] = {"__name__": "seed"}
    for code, mode, expected in steps(SEEDS / name):
        printed = run(code, name, mode, namespace)
        check(printed, expected, **({"atol": 0.15} if "random" in code else {"rtol": 1e-6}))
    return namespace


def test_gradient_transform(monkeypatch):
    names = play("gradient_transform.txt", monkeypatch)
    x, w, b = names["x"], names["weight"].value, names["bias"].value

    def pure(states, x, scale):
        return jnp.sum(((x @ states[0] + states[1]) * scale) ** 2)

    for got, want in zip(names["first"], jax.grad(pure)([w, b], x, 1.0), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    value, expected = jax.value_and_grad(pure, (0, 1, 2))([w, b], x, 2.0)
    states, arguments = names["grads"]
    assert type(states) is list and type(arguments) is tuple, "the form of grad_states; a tuple for argnums"
    for got, want in zip([*states, *arguments], [*expected[0], *expected[1:]], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    np.testing.assert_allclose(names["loss_value"], value, rtol=1e-6)
    np.testing.assert_allclose(names["aux_data"]["predictions"], x @ w + b)
    assert names["aux_data"]["scale"] == 2.0


def test_vector_grad(monkeypatch):
    """A comment in the document says `Shape: (3, 2)`. Its own description (and the tutorial, which prints a
    result) says that gradients are summed over the outputs: the shape is that of the input, (2,).
    """
    names = play("vector_grad.txt", monkeypatch)
    np.testing.assert_allclose(names["gradients"], [2 * 2.0 + 3.0, 3 * 3.0**2 + 2.0])
    (by_params,) = names["param_grads"]
    np.testing.assert_allclose(by_params, [3.0, 9.0])


def test_tutorial(monkeypatch):
    """The training loop draws its noise from a generator: with another one, the numbers that it prints are
    those of the document within 0.15, as far as most lines through 20 such points.
    """
    sg.random.seed(0)
    names = play("tutorial.md", monkeypatch)
    model = names["training_model"]
    np.testing.assert_allclose(model.weight.value, [[3.0]], atol=0.15)
    np.testing.assert_allclose(model.bias.value, [1.0], atol=0.1)
    assert float(jnp.hypot(*(jnp.linalg.norm(g) for g in names["clipped_grads"].values()))) == pytest.approx(
        0.1
    )
    np.testing.assert_allclose(names["cache"].value, 5.6, rtol=1e-6)


def test_vjp(monkeypatch):
    names = play("vjp.txt", monkeypatch)
    assert names["counter"].value == 1.0


# ------------------------------------------------------------------ what the documents say without code
COMMON = ["grad_states", "argnums", "has_aux", "return_value", "check_states"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("grad", [*COMMON, "unit_aware"]),
        ("vector_grad", [*COMMON, "unit_aware"]),
        ("jacrev", [*COMMON, "holomorphic", "unit_aware"]),
        ("jacfwd", [*COMMON, "holomorphic", "unit_aware"]),
        ("jacobian", [*COMMON, "holomorphic", "unit_aware"]),
        ("hessian", [*COMMON, "unit_aware"]),
        ("vjp", ["grad_states", "argnums", "has_aux"]),
        ("GradientTransform", ["target", "transform", *COMMON, "transform_params", "debug_nan"]),
    ],
)
def test_parameters(name, parameters):
    assert set(parameters) <= set(inspect.signature(getattr(sg.transform, name)).parameters)
    assert getattr(sg, name) is getattr(sg.transform, name)


@pytest.mark.parametrize("name", ["grad", "vector_grad", "jacrev", "jacfwd", "hessian"])
@pytest.mark.parametrize(
    ("by_states", "argnums"), [(False, None), (False, (0, 1)), (True, None), (True, 0), (True, (1, 0))]
)
def test_result_structures(name, by_states, argnums):
    w = sg.State(jnp.array([1.0, 2.0]), name="w")
    transform = getattr(sg.transform, name)
    found = {}
    for has_aux in (False, True):
        for return_value in (False, True):

            def f(x, y, has_aux=has_aux):
                value = jnp.sum(w.value**2 * x) * y
                return (value, {"y": y}) if has_aux else value

            made = transform(
                f,
                grad_states={"w": w} if by_states else None,
                argnums=argnums,
                has_aux=has_aux,
                return_value=return_value,
            )
            found[has_aux, return_value] = made(jnp.array([3.0, 4.0]), 2.0)
    plain, value, aux = found[False, False], jnp.array(38.0), {"y": jnp.array(2.0)}
    check_same(found[True, False], (plain, aux))
    check_same(found[False, True], (plain, value))
    check_same(found[True, True], (plain, value, aux))
    if name != "hessian":
        states, arguments = (plain if argnums is not None else (plain, None)) if by_states else ({}, plain)
        assert list(states) == ["w"] * by_states
        assert isinstance(arguments, tuple) == isinstance(argnums, tuple)


def check_same(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)
