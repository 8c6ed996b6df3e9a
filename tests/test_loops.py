"""Loops and branches with States inside, against plain Python and pure JAX."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.transform import (
    ProgressBar,
    bounded_while_loop,
    checkpointed_for_loop,
    checkpointed_scan,
    cond,
    for_loop,
    ifelse,
    scan,
    switch,
    while_loop,
)

XS = jnp.array([0.5, -1.0, 2.0, 0.3, 0.7, -0.2, 1.1])
_compilations = [0]


def _count(event: str, seconds: float, **details) -> None:
    _compilations[0] += event.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_count)


def compilations(call) -> int:
    before = _compilations[0]
    call()
    return _compilations[0] - before


def approx(value):
    return pytest.approx(np.asarray(value), rel=1e-5, abs=1e-6)


# ---------------------------------------------------------------------------------------- loops over arrays
def stateful_step(w, n):
    def step(carry, x):
        n.value += 1
        w.value = jnp.tanh(w.value * x + carry)
        return carry + w.value, {"w": w.value, "x": x}

    return step


def plain_loop(init, w, xs, reverse=False):
    ys = []
    for x in reversed(list(xs)) if reverse else xs:
        w = jnp.tanh(w * x + init)
        init = init + w
        ys.append(w)
    return init, w, jnp.stack(ys[::-1] if reverse else ys)


WAYS = {
    "scan": scan,
    "unrolled by 3": functools.partial(scan, unroll=3),
    "written out": functools.partial(scan, unroll=True),
    "reversed": functools.partial(scan, reverse=True),
    "reversed, unrolled by 2": functools.partial(scan, reverse=True, unroll=2),
    "checkpointed": checkpointed_scan,
    "checkpointed twice": functools.partial(checkpointed_scan, base=2),
    "with progress": functools.partial(checkpointed_scan, base=2, pbar=3),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["eager", "jit", "grad", "jit of grad"])
def test_scan(way, how):
    loop, reverse = WAYS[way], way.startswith("reversed")
    w, n = sg.State(0.4, name="w"), sg.State(0, name="n")
    step = stateful_step(w, n)
    if "grad" in how:
        gradient = sg.grad(lambda c, xs: loop(step, c, xs)[0], w, argnums=(0, 1), return_value=True)
        (by_w, by_args), carry = (sg.jit(gradient) if how.startswith("jit") else gradient)(0.2, XS)
        pure = jax.grad(lambda w, c, xs: plain_loop(c, w, xs, reverse)[0], (0, 1, 2))
        expected_w, *expected_args = pure(0.4, 0.2, XS)
        assert by_w == approx(expected_w)
        for got, expected in zip(by_args, expected_args, strict=True):
            assert got == approx(expected)
    else:
        call = sg.jit(lambda c, xs: loop(step, c, xs)) if how == "jit" else functools.partial(loop, step)
        carry, ys = call(0.2, XS)
        assert ys["w"] == approx(plain_loop(0.2, 0.4, XS, reverse)[2])
        np.testing.assert_array_equal(ys["x"], XS)
    expected, w_end, _ = plain_loop(0.2, 0.4, XS, reverse)
    assert carry == approx(expected)
    assert w.value == approx(w_end)
    assert n.value == len(XS)


def test_for_loop_takes_several_arrays_and_pytrees():
    s = sg.State(0.0, name="s")

    def step(x, pair):
        s.value += x
        return {"sum": s.value + pair["a"], "b": pair["b"]}

    ys = for_loop(step, XS, {"a": XS * 2, "b": jnp.ones((7, 3))})
    assert ys["sum"] == approx(np.cumsum(XS) + 2 * XS)
    assert ys["b"].shape == (7, 3)


def test_loops_without_arrays():
    s = sg.State(1.0, name="s")

    def double():
        s.value *= 2

    assert for_loop(double, length=5) is None
    assert s.value == 32.0
    assert scan(lambda c, x: (c + 1, x), 0, None, length=4) == (4, None)
    assert checkpointed_for_loop(lambda: s.value, length=20, base=3) == approx([32.0] * 20)


@pytest.mark.parametrize("loop", [scan, checkpointed_scan])
def test_loops_of_no_steps(loop):
    s = sg.State(1.0, name="s")

    def step(carry, x):
        s.value += x
        return carry, jnp.stack([x, x])

    carry, ys = loop(step, 3.0, jnp.zeros(0))
    assert (carry, ys.shape, s.value) == (3.0, (0, 2), 1.0)
    assert bounded_while_loop(lambda v: v < 9, lambda v: v + 1, 1.0, max_steps=0) == 1.0


def test_nested_loops_and_gradients():
    w = sg.State(1.1, name="w")

    def row(total, xs):
        def cell(x):
            w.value = jnp.sin(w.value + x)
            return cond(w.value > 0.5, lambda w: w * 2, lambda w: w, w.value)

        return total + for_loop(cell, xs).sum(), None

    def pure(v):
        total = 0.0
        for xs in XS[:6].reshape(2, 3):
            for x in xs:
                v = jnp.sin(v + x)
                total += jnp.where(v > 0.5, v * 2, v)
        return total

    total = lambda: scan(row, 0.0, XS[:6].reshape(2, 3))[0]  # noqa: E731
    assert sg.grad(total, w)() == approx(jax.grad(pure)(1.1))
    w.value = 1.1
    assert sg.grad(sg.grad(lambda x: total() * x**2))(1.5) == approx(2 * pure(1.1))


def test_checkpointed_scan_saves_memory_and_not_results():
    w = sg.State(jax.random.normal(jax.random.key(0), (64, 64)) * 0.1, name="w")

    def temporary(loop):
        def loss(h):
            return loop(lambda h, _: (jnp.tanh(w.value @ h + 1.0), None), h, None, length=1024)[0].sum()

        gradient = sg.grad(loss, w)
        memory = gradient.lower(jnp.zeros(64)).compile().memory_analysis().temp_size_in_bytes
        return memory, gradient(jnp.zeros(64))

    (plain, expected), (few, found) = temporary(scan), temporary(checkpointed_scan)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert few < 0.3 * plain


# -------------------------------------------------------------------------------------------- while
def test_while_loop():
    s, n = sg.State(1.0, name="s"), sg.State(0, name="n")

    def body(value):
        s.value /= 2
        n.value += 1
        return {"v": value["v"] + s.value}

    assert while_loop(lambda value: s.value > 0.1, body, {"v": 0.0})["v"] == approx(0.9375)
    assert (n.value, s.value) == (4, 0.0625)


@pytest.mark.parametrize("max_steps", [1, 2, 3, 7, 20, 500])
@pytest.mark.parametrize("base", [2, 16])
def test_bounded_while_loop(max_steps, base):
    w, n, asked = sg.State(1.3, name="w"), sg.State(0, name="n"), sg.State(0, name="asked")

    def condition(v):
        asked.value += 1
        return v < 20

    def body(v):
        n.value += 1
        w.value = w.value * 1.01
        return v * w.value + 1

    def pure(w, v):
        steps = questions = 0
        while questions < max_steps:
            questions += 1
            if not v < 20:
                break
            steps, w = steps + 1, w * 1.01
            v = v * w + 1
        return v, (steps, questions)

    loop = functools.partial(bounded_while_loop, condition, body, max_steps=max_steps, base=base)
    gradient = sg.jit(sg.grad(loop, w, argnums=0, return_value=True))
    (by_w, by_v), value = gradient(0.5)
    expected, (steps, questions) = pure(1.3, 0.5)
    expected_w, expected_v = jax.grad(lambda *a: pure(*a)[0], (0, 1))(1.3, 0.5)
    assert (value, by_w, by_v) == (approx(expected), approx(expected_w), approx(expected_v))
    assert (n.value, asked.value) == (steps, questions)


def test_reverse_through_a_while_loop_names_the_bounded_one():
    w = sg.State(1.0, name="w")
    with pytest.raises(Exception, match=r"(?s)bounded_while_loop.*test_loops.py"):
        sg.grad(lambda v: while_loop(lambda v: v < 3, lambda v: v + w.value, v))(0.0)
    assert w.value == 1.0


# -------------------------------------------------------------------------------------------- eager calls
def eager_calls(w, offset):
    yield "scan", lambda: scan(lambda c, x: (c + x * w.value + offset, c), 0.0, XS)[0]
    yield "for_loop", lambda: for_loop(lambda x: x * w.value + offset, XS).sum()
    yield "checkpointed", lambda: checkpointed_for_loop(lambda x: x * w.value + offset, XS, base=2).sum()
    yield "while", lambda: while_loop(lambda v: v < 9, lambda v: v + w.value + abs(offset).sum(), 1.0)
    yield (
        "bounded",
        lambda: bounded_while_loop(lambda v: v < 9, lambda v: v + w.value, offset.sum(), max_steps=20),
    )
    yield "cond", lambda: cond(w.value > 1, lambda: offset * 2, lambda: offset).sum()
    yield "switch", lambda: switch(1, [lambda x: x, lambda x: x * offset], w.value).sum()
    yield "ifelse", lambda: ifelse([w.value > 1, True], [lambda: offset, lambda: -offset]).sum()
    yield "progress", lambda: for_loop(lambda x: x + offset, XS, pbar=ProgressBar(freq=9)).sum()


@pytest.mark.parametrize("number", range(9))
def test_eager_calls_compile_once(number):
    """The arrays that the body closes over, and the values of States, change from call to call."""
    w = sg.State(1.1, name="w")

    def call(i):
        w.value = 1.1 + 0.1 * i
        _, run = list(eager_calls(w, jnp.array([float(i), 1.0]).sum()))[number]
        return run()

    first = call(1)
    assert compilations(lambda: [call(i) for i in range(2, 11)]) == 0
    assert call(1) == approx(first)
    assert call(2) != approx(first) or number in (3,)


def test_a_changed_python_value_is_seen():
    factor, s = 2.0, sg.State(0.0, name="s")

    def step(x):
        s.value += factor * x
        return s.value

    assert for_loop(step, jnp.ones(3)) == approx([2, 4, 6])
    factor = 3.0
    assert for_loop(step, jnp.ones(3)) == approx([9, 12, 15])


def test_an_eager_loop_commits_all_or_nothing():
    a, b = sg.State(0.0, name="a"), sg.State(0.0, name="b")
    held = a.value

    def step(x):
        a.value += x
        if fails:
            raise RuntimeError("half-way")
        b.value = a.value

    fails = True
    with pytest.raises(RuntimeError, match="half-way"):
        for_loop(step, XS)
    assert (a.value, b.value) == (0.0, 0.0)
    fails = False
    for_loop(step, XS)
    assert a.value == b.value == approx(XS.sum())
    assert held == 0.0
    sg.jit(lambda: [setattr(s, "value", s.value + 1) for s in (a, b)] and None)()
    assert a.value == b.value == approx(XS.sum() + 1)


def test_programs_hold_no_states():
    def use():
        s = sg.State(jnp.zeros(10), name="s")
        for_loop(lambda x: setattr(s, "value", s.value + x), XS)
        return weakref.ref(s)

    alive = use()
    gc.collect()
    assert alive() is None


def test_python_runs_the_loops_where_jit_is_off():
    seen, s = [], sg.State(0.0, name="s")

    def step(x):
        s.value += x
        seen.append(float(s.value))

    with jax.disable_jit():
        checkpointed_for_loop(step, XS, base=2)
    np.testing.assert_allclose(seen, np.cumsum(XS), rtol=1e-6)
