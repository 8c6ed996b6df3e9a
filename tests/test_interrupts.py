"""Interrupts and threads: whenever they come, no State loses an update and States written together agree."""

import signal
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.user_frame import is_user_file


def test_interrupts_at_any_moment_lose_no_update():
    """Both States advance together, whenever the interrupt comes; donated arrays are never left deleted."""
    a, b = sg.State(jnp.zeros(64), name="a"), sg.State(jnp.zeros(64), name="b")

    @sg.jit
    def step():
        a.value = a.value + 1
        b.value = b.value + 1

    step()
    armed = False

    def interrupt(*_):
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def run(until):
        # Not in the `try` itself: in Python 3.13 the jump back of a loop there is outside of what it covers.
        while time.monotonic() < until:
            step()

    before = signal.signal(signal.SIGALRM, interrupt)
    count = 0
    try:
        for i in range(60):
            step()  # copies what was looked at below, by JAX's own Python, which an interrupt may break
            until = time.monotonic() + 0.02
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.0005 * (i % 7))
                run(until)
                armed = False  # inside: a late alarm must not interrupt what follows
            except KeyboardInterrupt:
                count += 1
            np.testing.assert_array_equal(a.value, b.value)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count > 30


def test_threads_lose_no_update():
    n = sg.State(0, name="n")

    @sg.jit
    def step():
        n.value += 1

    def work():
        for _ in range(50):
            step()
            _ = n.value

    threads = [threading.Thread(target=work) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert n.value == 400


@pytest.mark.parametrize("several", [False, True])
def test_a_signal_handler_may_read_a_state_at_any_moment(several):
    w = sg.State(jnp.zeros(()), name="w")

    def body():
        w.value = w.value + 1

    steps = [sg.jit(body) for _ in range(1 + several)]
    for step in steps:
        step()
    seen = 0

    def look(*_):
        nonlocal seen
        _ = w.value
        seen += 1

    before = signal.signal(signal.SIGALRM, look)
    count = len(steps)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0007)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            for step in steps:
                step()
                count += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert seen > 20 and float(w.value) == count


def is_ours(file):
    return (not is_user_file(file) and "/jax" not in file) or file == __file__


class AtEvent:
    """Runs a function once in a `with`, at one of the moments at which Python looks for signals: when it
    enters a function, and after one of C; those inside of JAX left out.
    """

    def __init__(self, number, run):
        self.number, self.run, self.seen = number, run, 0

    def __call__(self, frame, event, argument):
        if event not in ("call", "c_return") or not is_ours(frame.f_code.co_filename):
            return
        self.seen += 1
        if self.seen == self.number:
            sys.setprofile(None)
            self.run()

    def __enter__(self):
        sys.setprofile(self)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)


@pytest.mark.parametrize("keeps", [True, False])
def test_functions_may_be_called_at_any_moment_of_calls_reads_and_writes(keeps):
    """Each update counts, values are read as a whole, no write is lost, no array is donated that was read."""
    w, flag = sg.State((jnp.zeros(()), jnp.zeros(())), name="w"), sg.State(0.0, name="flag")
    other = sg.State(0.0, name="other")

    def body():
        w.value = tuple(x + 1 for x in w.value)
        flag.value = flag.value * 1
        return None if keeps else (w.value, flag.value)

    step, bump = sg.jit(body), sg.jit(lambda: setattr(other, "value", other.value + 1))
    kept, count = [], 0

    def act():
        nonlocal count
        step()
        count += 1
        bump()
        kept.extend(w.value)
        if count % 2:
            step()
            count += 1

    for _ in range(3):
        act()
        flag.value = flag.value + 0.0
    number, reached = 0, True
    while reached:
        number += 1
        with AtEvent(number, act) as at:
            step()
            first, second = w.value
            flag.value = float(number)
            step()
            bump()
        count += 2
        reached = at.seen >= number
        kept += [first, second]
        assert first == second, number
        assert flag.value == number, number
        assert [float(x) for x in w.value] == [count, count], number
        assert not any(array.is_deleted() for array in kept), number
    assert number > 50


def test_a_value_is_read_as_a_whole():
    w = sg.State({k: jnp.zeros(()) for k in "abcd"}, name="w")

    @sg.jit
    def step():
        w.value = {k: v + 1 for k, v in w.value.items()}

    step()
    torn, stop = [], threading.Event()

    def read():
        while not stop.is_set():
            if len({float(v) for v in w.value.values()}) > 1:
                torn.append(w.value)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    readers = [threading.Thread(target=read) for _ in range(2)]
    try:
        for t in readers:
            t.start()
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            step()
    finally:
        stop.set()
        for t in readers:
            t.join()
        sys.setswitchinterval(interval)
    assert not torn
