"""MLIR contexts: programs of one thread share one, for some time."""

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import stategrad as sg
from stategrad.jax_compat import contexts


@pytest.fixture(autouse=True)
def new_context(monkeypatch):
    monkeypatch.setattr(contexts, "_shared", contexts._Shared())
    monkeypatch.setattr(contexts.mlir, "make_ir_context", contexts._context)  # where JAX shares them, too


def context_of(lowered: Any) -> Any:
    return lowered.compiler_ir().operation.context


def lowered(k: float = 2.0) -> Any:
    return sg.jit(lambda x: x * k).lower(jnp.ones(3))


def test_programs_of_ours_share_a_context_and_those_of_jax_do_not():
    first, second = lowered(2.0), lowered(3.0)
    theirs = jax.jit(lambda x: x + 1).lower(1.0)
    assert context_of(first) is context_of(second)
    assert context_of(theirs) is not context_of(first)
    for each, k in ((first, 2.0), (second, 3.0)):
        np.testing.assert_array_equal(each.compile()(jnp.ones(3)), k * np.ones(3))


def test_a_context_is_given_up_after_some_programs(monkeypatch):
    monkeypatch.setattr(contexts, "_PROGRAMS", 2)
    one, two, three = (context_of(lowered(k)) for k in (2.0, 3.0, 4.0))
    assert one is two and two is not three


def test_a_context_is_given_up_after_a_large_constant():
    table = np.arange(2**18, dtype=np.float32)
    with_constant = sg.jit(lambda x: x + jax.lax.stop_gradient(table)).lower(jnp.ones(2**18))
    assert len(with_constant.as_text()) > 2**20
    assert context_of(with_constant) is not context_of(lowered())


def test_each_thread_has_a_context_and_compiles_what_another_has_lowered():
    programs = [lowered(float(k)) for k in range(8)]
    found, contexts_seen = {}, []

    def work(k):
        contexts_seen.append(context_of(lowered(100.0 + k)))
        found[k] = float(programs[k].compile()(jnp.ones(3))[0])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: float(k) for k in range(8)}
    assert all(context is not context_of(programs[0]) for context in contexts_seen)
