"""Modules: objects that hold States, other Modules, and lists and mappings of these. And some layers."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, Self, overload

import jax
import jax.numpy as jnp

from . import graph, random
from .filters import Filter
from .pickles import by_name
from .random import RandomState
from .state import Epochs, ParamState, State

Initializer = Callable[[jax.Array, tuple[int, ...], Any], jax.Array]
"""As in `jax.nn.initializers`: (key, shape, dtype) -> array."""

_HE_NORMAL = jax.nn.initializers.he_normal()


class _Naming(type):
    """Names the States of a finished Module by their paths; a Module around it is finished later and wins."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        module = super().__call__(*args, **kwargs)
        for path, state in graph.walk(module):
            if not any(isinstance(key, tuple) for key in path):  # a mapping by paths refers to another object
                state.suggest_name(".".join(map(str, path)))
        return module


class Module(metaclass=_Naming):
    """The base of layers and models. States, Modules, lists and mappings are kept as ordinary attributes.

        class Affine(nn.Module):
            def __init__(self, n):
                self.weight = ParamState(jnp.ones((n, n)))
                self.bias = ParamState(jnp.zeros(n))

            def __call__(self, x):
                return x @ self.weight.value + self.bias.value

    A State without a name of its own is named by its path: `weight`, in a larger model `layers.0.weight`.
    """

    attributes_are_counted: ClassVar[bool] = True
    """Setting an attribute raises `Epochs.attributes`, so that guards need not look at each."""

    @overload
    def states(self, filter: Filter = ..., /) -> graph.FlatStates[State]: ...
    @overload
    def states(
        self, first: Filter, second: Filter, /, *rest: Filter
    ) -> tuple[graph.FlatStates[State], ...]: ...
    def states(self, *filters: Filter) -> Any:
        """The States by path, all or those that a filter selects; see `stategrad.graph.states`."""
        return graph.states(self, *filters)

    def __setattr__(self, name: str, value: Any) -> None:
        Epochs.attributes += 1
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        Epochs.attributes += 1
        super().__delattr__(name)

    def __getstate__(self) -> Any:
        """Copies and pickles find functions such as `jnp.tanh`, which refuse both, by their names."""
        return by_name(object.__getstate__(self))

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        attributes: Any = object.__getstate__(self)
        for part in attributes if isinstance(attributes, tuple) else (attributes,):
            for name, value in (part or {}).items():
                object.__setattr__(twin, name, value)
        return twin

    def __repr__(self) -> str:
        return _shown(self, "", set())


def _shown(node: Any, indent: str, above: set[int]) -> str:
    """A Module with one attribute a line; what has no States or Modules inside by its own `repr`."""
    if id(node) in above:
        return f"<{type(node).__name__} again>"
    if not isinstance(node, Module | list | tuple | dict) or not _is_nested(node):
        return getattr(node, "__name__", None) or repr(node)  # a function by its name
    above, deeper = above | {id(node)}, indent + "  "
    opening, between, closing = _brackets(node)
    lines = []
    for key, child in graph.children(node):
        label = (
            ""
            if isinstance(node, list | tuple)
            else f"{key}{between}"
            if between == "="
            else f"{key!r}{between}"
        )
        lines.append(f"{deeper}{label}{_shown(child, deeper, above)},\n")
    return f"{opening}\n{''.join(lines)}{indent}{closing}" if lines else f"{opening}{closing}"


def _is_nested(node: Any) -> bool:
    return isinstance(node, Module) or any(
        isinstance(child, State | Module) or (isinstance(child, list | tuple | dict) and _is_nested(child))
        for _, child in graph.children(node)
    )


def _brackets(node: Any) -> tuple[str, str, str]:
    if isinstance(node, dict):
        return "{", ": ", "}"
    if isinstance(node, list):
        return "[", "", "]"
    return ("(", "", ")") if isinstance(node, tuple) else (f"{type(node).__name__}(", "=", ")")


class Linear(Module):
    """`x @ weight + bias`, from `[..., in_features]` to `[..., out_features]`.

    Args:
        in_features: the size of the last axis of the input.
        out_features: the size of the last axis of the output.
        use_bias: whether there is a bias; without one `bias` is None.
        w_init: makes the weight, of shape (in_features, out_features).
        b_init: makes the bias, of shape (out_features,).
        dtype: of both; by default JAX's float.
        rng: where the initial values are drawn from.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        w_init: Initializer = _HE_NORMAL,
        b_init: Initializer = jax.nn.initializers.zeros,
        dtype: Any = float,
        rng: RandomState | None = None,
    ) -> None:
        dtype, rng = jax.dtypes.canonicalize_dtype(dtype), random.default() if rng is None else rng
        self.weight = ParamState(w_init(rng.split_key(), (in_features, out_features), dtype))
        self.bias = ParamState(b_init(rng.split_key(), (out_features,), dtype)) if use_bias else None

    def __call__(self, x: Any) -> jax.Array:
        y = jnp.matmul(x, self.weight.value)
        return y if self.bias is None else y + _along(self.bias.value, y)


def _along(feature: jax.Array, x: Any) -> jax.Array:
    """A value for each feature with as many axes as `x`: JAX can be told to refuse arrays of unequal rank."""
    return jnp.expand_dims(feature, tuple(range(jnp.ndim(x) - 1)))


class BatchNorm(Module):
    """Normalises each feature (last axis) over all other axes, then scales and shifts it.

    In training by the mean and variance of the batch, and moves the running ones; else by the running ones.

    Args:
        features: the size of the last axis.
        momentum: how much of a running value is kept at each training call.
        epsilon: added to the variance.
        dtype: of all States; by default JAX's float.
    """

    def __init__(
        self, features: int, *, momentum: float = 0.9, epsilon: float = 1e-5, dtype: Any = float
    ) -> None:
        dtype = jax.dtypes.canonicalize_dtype(dtype)
        self.momentum, self.epsilon = momentum, epsilon
        self.scale = ParamState(jnp.ones(features, dtype))
        self.shift = ParamState(jnp.zeros(features, dtype))
        self.mean = State(jnp.zeros(features, dtype))
        self.variance = State(jnp.ones(features, dtype))

    def __call__(self, x: Any, *, training: bool) -> jax.Array:
        mean, variance = self._of_batch(x) if training else (self.mean.value, self.variance.value)
        scale = jax.lax.rsqrt(variance + self.epsilon) * self.scale.value
        return (x - _along(mean, x)) * _along(scale, x) + _along(self.shift.value, x)

    def _of_batch(self, x: Any) -> tuple[jax.Array, jax.Array]:
        axes = tuple(range(x.ndim - 1))
        mean, variance = jnp.mean(x, axes), jnp.var(x, axes)
        for running, current in ((self.mean, mean), (self.variance, variance)):
            kept = self.momentum * running.value
            running.value = kept + (1 - self.momentum) * jax.lax.stop_gradient(current)
        return mean, variance


class Dropout(Module):
    """In training sets each element to zero with probability `rate`, and scales the others to keep the mean.

    Args:
        rate: the probability, at least 0 and less than 1.
        rng: where the decisions are drawn from; by default `stategrad.random`'s own State.

    Raises:
        ValueError: the rate is not in [0, 1).
    """

    def __init__(self, rate: float, *, rng: RandomState | None = None) -> None:
        if not 0 <= rate < 1:
            raise ValueError(f"Dropout takes a rate in [0, 1), got {rate}")
        self.rate, self.rng = rate, rng

    def __call__(self, x: Any, *, training: bool) -> jax.Array:
        if not training or self.rate == 0:
            return x
        rng = random.default() if self.rng is None else self.rng
        kept = rng.bernoulli(1 - self.rate, size=jnp.shape(x))
        return jnp.where(kept, x / (1 - self.rate), 0)


class Layer(Protocol):
    """What `Sequential` chains: any function of one array, and of `training` if it likes."""

    def __call__(self, x: Any, /) -> Any: ...


class Sequential(Module):
    """Calls its layers one after the other; a layer is any function of one array, a Module among them.

    Those with a parameter `training`, such as `Dropout` and `BatchNorm`, are told whether it is training.
    """

    def __init__(self, *layers: Layer) -> None:
        self.layers: Sequence[Layer] = list(layers)

    def __call__(self, x: Any, *, training: bool | None = None) -> Any:
        for layer in self.layers:
            told = {} if training is None or not _takes_training(layer) else {"training": training}
            x = layer(x, **told)
        return x


def _takes_training(layer: Layer) -> bool:
    try:
        return "training" in inspect.signature(layer).parameters
    except (TypeError, ValueError):  # a function of C, which shows no signature
        return False
