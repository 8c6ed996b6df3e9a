"""JAX's own errors about a value that is not known yet name the user's function, line and argument."""

import inspect

import jax
import jax.numpy as jnp
import pytest

import stategrad as sg


def sign(x, params):
    if x > 0:
        return params["w"]
    return x


def first(c, x):
    return sign(c, {"w": x}), None


def halve(c):
    return sign(c, {"w": c}) / 2


class Model(sg.nn.Module):
    def __call__(self, x):
        return x if x > 0 else -x

    @sg.jit
    def method(self, x):
        return x if x > 0 else -x


GIVEN = 1.0, {"w": 2.0}
XS = jnp.ones(4)

PROGRAMS = {
    "jit": (sign, "x", lambda: sg.jit(sign)(*GIVEN)),
    "by name": (sign, "x", lambda: sg.jit(sign)(params={"w": 1.0}, x=1.0)),
    "static": (sign, "x", lambda: sg.jit(sign, static_argnames="params")(1.0, 2)),
    "a module": (Model.__call__, "x", lambda: sg.jit(Model())(1.0)),
    "a method": (Model.method.__wrapped__, "x", lambda: Model().method(1.0)),
    "grad": (sign, "x", lambda: sg.grad(sign)(*GIVEN)),
    "hessian": (sign, "x", lambda: sg.hessian(sign)(*GIVEN)),
    "fwd_grad": (sign, "x", lambda: sg.fwd_grad(sign)(*GIVEN)),
    "GradientTransform": (sign, "x", lambda: sg.GradientTransform(sign, jax.jacrev)(*GIVEN)),
    "vjp": (sign, "x", lambda: sg.vjp(sign, *GIVEN)),
    "jvp": (sign, "x", lambda: sg.jvp(sign, GIVEN, (1.0, None))),
    "vmap": (sign, "x", lambda: sg.vmap(sign)(XS, {"w": XS})),
    "checkpoint": (sign, "x", lambda: sg.jit(sg.checkpoint(sign))(*GIVEN)),
    "eval_shape": (sign, "x", lambda: sg.eval_shape(sign, *GIVEN)),
    "StateFinder": (sign, "x", lambda: sg.StateFinder(sign)(*GIVEN)),
    "scan": (first, "c", lambda: sg.scan(first, 1.0, XS)),
    "scan with progress": (first, "c", lambda: sg.scan(first, 1.0, XS, pbar=2)),
    "unrolled scan": (first, "c", lambda: sg.scan(first, 1.0, XS, unroll=2)),
    "checkpointed_scan": (first, "c", lambda: sg.checkpointed_scan(first, 1.0, XS, base=2)),
    "for_loop": (sign, "xs[0]", lambda: sg.for_loop(sign, XS, {"w": XS})),
    "checkpointed_for_loop": (sign, "xs[0]", lambda: sg.checkpointed_for_loop(sign, XS, {"w": XS}, base=2)),
    "while_loop": (halve, "c", lambda: sg.while_loop(lambda c: c < 1, halve, 1.0)),
    "while_loop's condition": (halve, "c", lambda: sg.while_loop(halve, lambda c: c, 1.0)),
    "bounded_while_loop": (
        halve,
        "c",
        lambda: sg.bounded_while_loop(lambda c: c < 1, halve, 1.0, max_steps=40, base=4),
    ),
    "cond": (halve, "c", lambda: sg.cond(True, halve, lambda x: x, 1.0)),
    "switch": (halve, "c", lambda: sg.switch(0, [halve, lambda x: x], 1.0)),
    "ifelse": (halve, "c", lambda: sg.ifelse([True], [halve, lambda x: x], 1.0)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_users_function_is_named(name):
    function, argument, program = PROGRAMS[name]
    with pytest.raises(jax.errors.TracerBoolConversionError) as caught:
        program()
    line = inspect.getsourcelines(function)[1]
    text = str(caught.value)
    called = "Model" if function is Model.__call__ else function.__name__
    assert f"tracing the function {called} at {__file__}:{line}" in text
    assert f"the argument {argument}." in text


def test_a_shape_that_is_not_known():
    def zeros(count):
        return jnp.zeros(count)

    with pytest.raises(TypeError, match=r"the function zeros at .*the argument count\."):
        sg.jit(zeros)(3)
