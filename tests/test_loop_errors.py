"""What loops and branches say of what they cannot do: messages name the leaf or State and the user's line."""

import functools

import jax.numpy as jnp
import pytest

import stategrad as sg
from stategrad.transform import (
    ProgressBar,
    bounded_while_loop,
    checkpoint,
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
LINE = r"\(.*test_loop_errors.py:\d+\)"


def _write_wider(w):
    def step(x):
        w.value = jnp.ones(3)

    return step


BAD = {
    "dtype of a carry": (
        lambda w: scan(lambda c, x: ({"h": c["h"].astype(int)}, x), {"h": jnp.ones(3)}, XS),
        rf"the carry of scan {LINE} changes its type in `<lambda>` {LINE}: "
        r"carry\['h'\] enters as float32\[3\] and comes back as int32\[3\]; give back float32\[3\] "
        r"\(`\.astype\('float32'\)`\), or start with int32\[3\]",
    ),
    "shape of an unrolled carry": (
        lambda w: scan(lambda c, x: (c + jnp.ones(2), x), 0.0, XS, unroll=True),
        r"carry enters as float32\[\] and comes back as float32\[2\].*keep its shape",
    ),
    "carry in chunks": (
        lambda w: checkpointed_scan(lambda c, x: (c + jnp.ones(2), x), 0.0, XS, base=2),
        r"the carry of checkpointed_scan .*float32\[\] and comes back as float32\[2\]",
    ),
    "structure of a carry": (
        lambda w: scan(lambda c, x: ((c, c), x), 0.0, XS),
        r"changes its structure in .*enters as \* and comes back as \(\*, \*\)",
    ),
    "no pair": (
        lambda w: scan(lambda c, x: c, 0.0, XS),
        r"must return a pair \(carry, output\), not .*return `carry, None`",
    ),
    "a State in a loop": (
        lambda w: for_loop(_write_wider(w), XS),
        rf"the State 'w' changes its type .* {LINE}: it holds float32\[\] and is given float32\[3\]; write",
    ),
    "a State in a branch": (
        lambda w: cond(True, _write_wider(w), lambda x: None, 1.0),
        r"the State 'w' changes its type",
    ),
    "a range": (
        lambda w: for_loop(lambda i: i, range(3)),
        r"xs\[0\] of for_loop .*range\(0, 3\) of type range.*jnp.array",
    ),
    "numbers": (lambda w: for_loop(lambda i: i, [1, 2]), r"xs\[0\]\[0\] of for_loop .*is a single number"),
    "two lengths": (
        lambda w: for_loop(lambda x, y: x, XS, {"a": jnp.ones(3)}),
        r"xs\[1\]\['a'\] of for_loop has 3 steps where xs\[0\] has 7",
    ),
    "another length": (
        lambda w: scan(lambda c, x: (c, x), 0, XS, length=2),
        r"xs of scan has 7 steps where length says 2",
    ),
    "a bad length": (lambda w: for_loop(lambda: 0, length=2.5), r"length of for_loop is 2.5"),
    "nothing to count": (lambda w: for_loop(lambda: 0), r"for_loop has nothing to loop over"),
    "a State as xs": (lambda w: for_loop(lambda x: x, w), r"is the State 'w'.*pass w.value"),
    "a State as init": (
        lambda w: scan(lambda c, x: (c, x), w, XS),
        r"argument 'init' of scan is the State 'w'",
    ),
    "no function": (lambda w: for_loop(3, XS), r"the body of for_loop .*is 3 of type int, not a function"),
    "unroll": (lambda w: for_loop(lambda x: x, XS, unroll=-1), r"unroll of for_loop is -1"),
    "base": (
        lambda w: checkpointed_for_loop(lambda x: x, XS, base=1),
        r"base of checkpointed_for_loop is 1, .* 2 or more",
    ),
    "a number as condition": (
        lambda w: while_loop(lambda v: v, lambda v: v, 1.0),
        r"the answer of `<lambda>` .* of while_loop .*is float32\[\], expected one boolean",
    ),
    "a pair as condition": (
        lambda w: while_loop(lambda v: (v, v), lambda v: v, 1.0),
        r"must give while_loop .*not tuple",
    ),
    "value of a while": (
        lambda w: while_loop(lambda v: v < 3, lambda v: jnp.ones(2), 1.0),
        r"the carry of while_loop .*float32\[\] and comes back as float32\[2\]",
    ),
    "value of a bounded while": (
        lambda w: bounded_while_loop(lambda v: v < 3, lambda v: jnp.ones(2), 1.0, max_steps=3),
        r"the carry of bounded_while_loop .*float32\[\] and comes back as float32\[2\]",
    ),
    "max_steps": (
        lambda w: bounded_while_loop(lambda v: v < 3, lambda v: v, 1.0, max_steps=-1),
        r"max_steps of bounded_while_loop is -1",
    ),
    "branch types": (
        lambda w: cond(True, lambda x: {"a": x}, lambda x: {"a": x > 1}, 1.0),
        rf"the branches of cond {LINE} give different types: result\['a'\] of branch 0, `<lambda>` {LINE}, "
        r"is float32\[\], and of branch 1, .* is bool\[\]",
    ),
    "branch structures": (
        lambda w: switch(0, [lambda: 1, lambda: (1, 2)]),
        r"the branches of switch .* structures: branch 0, .*gives \*, and branch 1, .*gives \(\*, \*\)",
    ),
    "pred": (
        lambda w: cond(XS > 0, lambda: 1, lambda: 2),
        r"pred of cond .*bool\[7\], expected one boolean.*jnp.any",
    ),
    "a State as pred": (lambda w: cond(w, lambda: 1, lambda: 2), r"pred of cond .*pass w.value"),
    "index": (lambda w: switch(1.0, [lambda: 1]), r"index of switch .*float32\[\], expected one integer"),
    "no branches": (lambda w: switch(0, []), r"branches of switch is \[\], expected a list of functions"),
    "a branch": (lambda w: ifelse([True], [lambda: 1, 2]), r"branches\[1\] of ifelse .* 2 of type int"),
    "conditions": (lambda w: ifelse([True], [lambda: 1] * 3), r"ifelse .*has 1 conditions for 3 branches"),
    "condition": (lambda w: ifelse([XS > 0], [lambda: 1] * 2), r"conditions\[0\] of ifelse .*bool\[7\]"),
    "pbar": (lambda w: for_loop(lambda x: x, XS, pbar="yes"), r"pbar of for_loop is 'yes'"),
    "freq": (lambda w: ProgressBar(freq=0), r"freq of ProgressBar is 0"),
    "freq and count": (lambda w: ProgressBar(freq=1, count=2), r"has both freq and count"),
    "desc": (lambda w: ProgressBar(desc=3), r"desc of ProgressBar is 3"),
    "values of desc": (
        lambda w: for_loop(lambda x: x, XS, pbar=ProgressBar(desc=("{y}", lambda d: "text"))),
        r"the function in desc of ProgressBar gives 'text'",
    ),
    "checkpoint": (lambda w: checkpoint(3), r"checkpoint of 3 of type int"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("compiled", [False, True])
def test_errors(case, compiled):
    call, message = BAD[case]
    w = sg.State(1.0, name="w")
    run = sg.jit(lambda: call(w)) if compiled else functools.partial(call, w)
    with pytest.raises((sg.TraceError, sg.StateError), match=message):
        run()
    assert w.value == 1.0


def test_an_error_of_the_body_stays_what_it_is():
    def step(carry, x):
        return carry + {}, x

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        scan(step, 0.0, XS)
    assert not isinstance(caught.value, sg.TraceError)
