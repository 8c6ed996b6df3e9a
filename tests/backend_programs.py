"""What the tests of the backend share."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from stategrad.importing import import_jaxpr
from stategrad.ir import Function, Names


def imported(fn: Callable[..., Any], *args: Any) -> Function:
    """The function in our IR: a test of the backend needs programs, and JAX knows what they should give."""
    return import_jaxpr(jax.make_jaxpr(fn)(*args), "f", lambda *_: pytest.fail("a state"), Names()).function


def same(found: Any, wanted: Any) -> None:
    found, wanted = jax.tree.leaves(found), jax.tree.leaves(wanted)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert jax.typeof(a).dtype == jax.typeof(b).dtype
        if jax.typeof(a).dtype == jax.dtypes.float0:
            continue
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)
