"""What `explain()` says about the cause of a trace."""

import jax
import jax.numpy as jnp
import pytest

import stategrad as sg


def reasons(fn) -> list[str]:
    return [line.split(": ", 1)[1] for line in fn.explain().splitlines()]


@pytest.mark.parametrize("transform", [sg.jit, sg.grad], ids=["jit", "grad"])
def test_a_static_argument(transform):
    f = transform(lambda x, n, mode="plain": x**n, static_argnums=1, static_argnames="mode")
    f(2.0, 2)
    f(2.0, 3)
    f(2.0, 3, mode="other")
    assert reasons(f) == [
        "the first call, with x: weak f32[], the static argument n: 2",
        "the static argument n changed from 2 to 3",
        "the static argument mode changed from nothing to 'other'",
    ]


def test_a_number_of_python_in_place_of_an_array():
    f = sg.jit(lambda x, y: x * y)
    f(1.0, jnp.ones(()))
    f(1.0, 1.0)
    f(jnp.ones(()), 1.0)
    assert reasons(f)[1:] == ["y changed from f32[] to weak f32[]", "x changed from weak f32[] to f32[]"]


def test_a_setting_of_jax():
    f = sg.jit(lambda x: x * 2)
    f(jnp.ones(2))
    with jax.default_matmul_precision("float32"):
        f(jnp.ones(2))
    assert reasons(f)[1] == "the setting jax_default_matmul_precision changed from None to float32"


def test_an_equal_text_is_not_told_twice():
    options = {"scale": 1.0, "what the reader does not see": "x" * 100, "last": 1}
    f = sg.jit(lambda x: x * options["scale"] * options["last"])
    f(1.0)
    options["last"] = 2
    f(1.0)
    assert "changed from 1 to 2" in reasons(f)[1]
    options = dict(options, last=3)
    f(1.0)
    assert reasons(f)[2].startswith("the closure variable 'options' became another object, {'scale': 1.0")


def test_a_value_that_changes_at_every_call_brings_one_warning():
    step = 0
    f = sg.jit(lambda x: x * step)
    for step in range(7):  # noqa: B007
        f(1.0)
    step = 100
    f(1.0)
    step = 101
    with pytest.warns(
        sg.RetraceWarning, match=r"traced 8 times .* 'step' changed from .* \(.*test_retraces.py:\d+\)"
    ):
        f(1.0)
    step = 102
    assert f(1.0) == 102.0


def test_values_that_come_back_bring_no_warning():
    on = True
    f = sg.jit(lambda x: x if on else -x)
    for _ in range(20):
        on = not on
        f(1.0)
