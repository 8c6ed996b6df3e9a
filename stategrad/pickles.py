"""What stands in a pickle for arrays, PRNG keys, and functions that can be found by their names."""

import functools
import sys
from types import FunctionType
from typing import Any

import jax
import numpy as np


class _Key:
    """PRNG keys."""

    def __init__(self, data: np.ndarray, implementation: Any) -> None:
        self.data = data
        self.implementation = implementation


def to_host(array: Any) -> Any:
    """An array as it goes into a pickle: of NumPy, or of keys."""
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        return _Key(np.asarray(jax.random.key_data(array)), jax.random.key_impl(array))
    return np.asarray(array)


def from_host(leaf: Any) -> Any:
    """What `to_host` was given; other leaves are what they are."""
    if isinstance(leaf, _Key):
        return jax.random.wrap_key_data(jax.numpy.asarray(leaf.data), impl=leaf.implementation)
    return leaf


class _ByName:
    """A function that comes out of the pickle, or of a deep copy, as what its name means then."""

    def __init__(self, path: tuple[str, str]) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return found_by_name, self.path


def by_name(value: Any) -> Any:
    """The same with functions by name, in lists, tuples and dicts too, where pickle itself cannot do that.

    Of JAX's functions many are objects (`jnp.tanh`, `jax.nn.relu`), which refuse to be pickled.
    """
    if type(value) in (list, tuple):
        changed = type(value)(map(by_name, value))
    elif type(value) is dict:
        changed = {key: by_name(part) for key, part in value.items()}
    else:
        path = None if isinstance(value, (FunctionType, type)) else path_of(value)
        return value if path is None else _ByName(path)
    kept = value.values() if isinstance(value, dict) else value
    found = changed.values() if isinstance(changed, dict) else changed
    return value if all(a is b for a, b in zip(kept, found, strict=True)) else changed


def path_of(function: Any) -> tuple[str, str] | None:
    """Module and name under which a function is found; None if it is not."""
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module not in sys.modules:
        return None
    return (module, name) if found_by_name(module, name) is function else None


def found_by_name(module: str, name: str) -> Any:
    """What a module has under a name, with dots for what is inside of something; None if nothing."""
    return functools.reduce(lambda found, part: getattr(found, part, None), name.split("."), _module(module))


def _module(name: str) -> Any:
    __import__(name)
    return sys.modules[name]
