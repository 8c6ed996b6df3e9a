"""Random numbers from a State: each draw advances it, in compiled functions, loops and gradients too.

The functions of this module are the methods of one `RandomState`, `DEFAULT`.
"""

import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from . import jax_compat as compat
from .state import State

P = ParamSpec("P")
R = TypeVar("R")
Size: TypeAlias = int | Sequence[int] | None
"""The shape of the result; None: the shape that the parameters broadcast to."""

_IMPLEMENTATION = "threefry2x32"


class RandomState(State):
    """A PRNG key that is split at each draw. Its value is the key's data, two 32-bit words.

    Args:
        seed: a whole number, or one of JAX's keys.
        name: shown in errors, dumps and reports.

    All draws take `size` (the shape of the result, by default that of the parameters), `dtype` (JAX's default
    float or integer) and `key` (draw from this key instead, and leave the State as it is).
    """

    __slots__ = ()

    def __init__(self, seed: Any = 0, name: str | None = None) -> None:
        super().__init__(_key_data(seed), name)

    def seed(self, seed: Any = 0) -> None:
        """Starts the stream that belongs to a whole number or one of JAX's keys."""
        self.value = _key_data(seed)

    def split_key(self, count: int | None = None) -> jax.Array:
        """A new key of JAX's, or an array of `count` of them."""
        keys = jax.random.split(
            jax.random.wrap_key_data(self.value, impl=_IMPLEMENTATION), 1 + (1 if count is None else count)
        )
        self.value = jax.random.key_data(keys[0])
        return keys[1] if count is None else keys[1:]

    def _key(self, key: Any) -> jax.Array:
        return self.split_key() if key is None else key

    # ------------------------------------------------------------------ uniform and normal
    def random(self, size: Size = None, *, dtype: Any = float, key: Any = None) -> jax.Array:
        """Uniform on [0, 1)."""
        return self.uniform(0.0, 1.0, size, dtype=dtype, key=key)

    def rand(self, *size: int, dtype: Any = float, key: Any = None) -> jax.Array:
        """Uniform on [0, 1), with the shape given as separate numbers."""
        return self.uniform(0.0, 1.0, size, dtype=dtype, key=key)

    def uniform(
        self, low: Any = 0.0, high: Any = 1.0, size: Size = None, *, dtype: Any = float, key: Any = None
    ) -> jax.Array:
        """Uniform on [low, high)."""
        return jax.random.uniform(self._key(key), _shape(size, low, high), _float(dtype), low, high)

    def randn(self, *size: int, dtype: Any = float, key: Any = None) -> jax.Array:
        """Normal with mean 0 and deviation 1, with the shape given as separate numbers."""
        return self.normal(0.0, 1.0, size, dtype=dtype, key=key)

    def normal(
        self, loc: Any = 0.0, scale: Any = 1.0, size: Size = None, *, dtype: Any = float, key: Any = None
    ) -> jax.Array:
        """Normal with mean `loc` and deviation `scale`."""
        drawn = jax.random.normal(self._key(key), _shape(size, loc, scale), _float(dtype))
        return _placed(drawn, loc, scale)

    def truncated_normal(
        self,
        lower: Any,
        upper: Any,
        size: Size = None,
        *,
        loc: Any = 0.0,
        scale: Any = 1.0,
        dtype: Any = float,
        key: Any = None,
    ) -> jax.Array:
        """Normal with mean `loc` and deviation `scale`, restricted to [lower, upper]."""
        dtype, shape = _float(dtype), _shape(size, lower, upper, loc, scale)
        low, high = ((jnp.asarray(bound, dtype) - loc) / scale for bound in (lower, upper))
        drawn = jax.random.truncated_normal(self._key(key), low, high, shape, dtype)
        return _placed(drawn, loc, scale)

    # ------------------------------------------------------------------ other real distributions
    def exponential(
        self, scale: Any = 1.0, size: Size = None, *, dtype: Any = float, key: Any = None
    ) -> jax.Array:
        """Exponential with mean `scale`."""
        drawn = jax.random.exponential(self._key(key), _shape(size, scale), _float(dtype))
        return _placed(drawn, 0.0, scale)

    def laplace(
        self, loc: Any = 0.0, scale: Any = 1.0, size: Size = None, *, dtype: Any = float, key: Any = None
    ) -> jax.Array:
        """Laplace with mean `loc` and decay `scale`."""
        drawn = jax.random.laplace(self._key(key), _shape(size, loc, scale), _float(dtype))
        return _placed(drawn, loc, scale)

    def gumbel(
        self, loc: Any = 0.0, scale: Any = 1.0, size: Size = None, *, dtype: Any = float, key: Any = None
    ) -> jax.Array:
        """Gumbel with mode `loc` and scale `scale`."""
        drawn = jax.random.gumbel(self._key(key), _shape(size, loc, scale), _float(dtype))
        return _placed(drawn, loc, scale)

    def gamma(
        self, shape: Any, scale: Any = 1.0, size: Size = None, *, dtype: Any = float, key: Any = None
    ) -> jax.Array:
        """Gamma with this shape parameter and scale."""
        drawn = jax.random.gamma(self._key(key), shape, _shape(size, shape, scale), _float(dtype))
        return _placed(drawn, 0.0, scale)

    def beta(self, a: Any, b: Any, size: Size = None, *, dtype: Any = float, key: Any = None) -> jax.Array:
        """Beta on [0, 1]."""
        return jax.random.beta(self._key(key), a, b, _shape(size, a, b), _float(dtype))

    # ------------------------------------------------------------------ discrete
    def randint(
        self, low: Any, high: Any = None, size: Size = None, *, dtype: Any = int, key: Any = None
    ) -> jax.Array:
        """Whole numbers from [low, high), or from [0, low) without `high`."""
        low, high = (0, low) if high is None else (low, high)
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        return jax.random.randint(self._key(key), _shape(size, low, high), low, high, dtype)

    def bernoulli(self, p: Any = 0.5, size: Size = None, *, key: Any = None) -> jax.Array:
        """True with probability `p`."""
        return jax.random.bernoulli(self._key(key), p, _shape(size, p))

    def poisson(self, lam: Any = 1.0, size: Size = None, *, dtype: Any = int, key: Any = None) -> jax.Array:
        """Poisson with mean `lam`."""
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        return jax.random.poisson(self._key(key), lam, _shape(size, lam), dtype)

    def categorical(self, logits: Any, axis: int = -1, size: Size = None, *, key: Any = None) -> jax.Array:
        """Positions along `axis`, with probabilities softmax(logits)."""
        shape = None if size is None else _shape(size)
        return jax.random.categorical(self._key(key), jnp.asarray(logits), axis, shape)

    # ------------------------------------------------------------------ orders and selections
    def permutation(self, x: Any, axis: int = 0, *, independent: bool = False, key: Any = None) -> jax.Array:
        """The array in random order along `axis`; of a whole number n, that of 0 to n - 1."""
        return jax.random.permutation(self._key(key), x, axis, independent=independent)

    def shuffle(self, x: Any, axis: int = 0, *, key: Any = None) -> jax.Array:
        """The array in random order along `axis`; arrays are immutable, so it is returned."""
        return self.permutation(jnp.asarray(x), axis, key=key)

    def choice(
        self,
        a: Any,
        size: Size = None,
        replace: bool = True,
        p: Any = None,
        *,
        axis: int = 0,
        key: Any = None,
    ) -> jax.Array:
        """Elements of `a` (of 0 to a - 1, if it is a whole number), with probabilities `p`."""
        return jax.random.choice(self._key(key), a, _shape(size), replace, p, axis)


def _key_data(seed: Any) -> Any:
    """The data of a key; computed by NumPy from a whole number, so that no device is needed.

    Raises:
        TypeError: it is neither a whole number nor a key.
    """
    if isinstance(seed, int | np.integer):
        return np.array([int(seed) >> 32 & 0xFFFFFFFF, int(seed) & 0xFFFFFFFF], np.uint32)
    data = jax.random.key_data(seed) if _is_key(seed) else seed
    if getattr(data, "shape", None) != (2,) or data.dtype != np.uint32:
        raise TypeError(f"a seed is a whole number or one {_IMPLEMENTATION} key of JAX's, got {seed!r}")
    return data


def _is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _float(dtype: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(dtype)


def _shape(size: Size, *parameters: Any) -> tuple[int, ...]:
    if size is None:
        return jnp.broadcast_shapes(*(jnp.shape(p) for p in parameters))
    return (int(size),) if isinstance(size, int | np.integer) else tuple(size)


def _placed(drawn: jax.Array, loc: Any, scale: Any) -> jax.Array:
    """`loc + scale * drawn` in the type of what was drawn; nothing is computed for 0 and 1."""
    if not (isinstance(scale, float | int) and scale == 1):
        drawn = drawn * jnp.asarray(scale, drawn.dtype)
    if not (isinstance(loc, float | int) and loc == 0):
        drawn = drawn + jnp.asarray(loc, drawn.dtype)
    return drawn


_lock = threading.Lock()
_default: list[RandomState] = []


def default() -> RandomState:
    """The State that the functions of this module draw from; made when first needed, as it needs a device."""
    with _lock:
        if not _default:
            with compat.outside_of_traces():  # within a trace, too, it is a State of the whole program
                _default.append(RandomState(0, "random"))
    return _default[0]


def _from_default(method: Callable[Concatenate[RandomState, P], R]) -> Callable[P, R]:
    @wraps(method)
    def draw(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(default(), *args, **kwargs)

    return draw


def __getattr__(name: str) -> Any:
    if name == "DEFAULT":
        return default()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


seed = _from_default(RandomState.seed)
split_key = _from_default(RandomState.split_key)
random = _from_default(RandomState.random)
rand = _from_default(RandomState.rand)
uniform = _from_default(RandomState.uniform)
randn = _from_default(RandomState.randn)
normal = _from_default(RandomState.normal)
truncated_normal = _from_default(RandomState.truncated_normal)
exponential = _from_default(RandomState.exponential)
laplace = _from_default(RandomState.laplace)
gumbel = _from_default(RandomState.gumbel)
gamma = _from_default(RandomState.gamma)
beta = _from_default(RandomState.beta)
randint = _from_default(RandomState.randint)
bernoulli = _from_default(RandomState.bernoulli)
poisson = _from_default(RandomState.poisson)
categorical = _from_default(RandomState.categorical)
permutation = _from_default(RandomState.permutation)
shuffle = _from_default(RandomState.shuffle)
choice = _from_default(RandomState.choice)
