"""Types: JAX's and ours, strong and weak."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import config, core, dtypes
from jax._src.lax import lax as lax_internal
from jax._src.random import prng

from stategrad.ir import DType, IRTypeError, Type, dtype, dtype_of

from .traces import is_eager


def strong(aval: Any) -> Any:
    """The same type without the weak flag."""
    return aval.strip_weak_type() if getattr(aval, "weak_type", False) else aval


def strong_type(array: Any) -> Any:
    """The type of an array or tracer, without the weak flag."""
    return strong(array.aval)


# A jitted function costs a tenth of what `jnp` takes to make or copy a small array.
copied: Any = jax.jit(jnp.copy)
"""An array of the same value with a buffer of its own."""


@jax.jit
def _strong(number: Any) -> Any:
    array = jnp.asarray(number)
    return lax_internal._convert_element_type(array, array.dtype, weak_type=False)


def strong_array(leaf: Any) -> Any:
    """A number or array, concrete or traced, as an array of a strong type."""
    if isinstance(leaf, (bool, int, float, complex)) and is_eager():
        return _strong(leaf)
    array = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    if getattr(array.aval, "weak_type", False):
        array = lax_internal._convert_element_type(array, array.dtype, weak_type=False)
    return array


def adopt_type(leaf: Any, aval: Any) -> Any:
    """A leaf as an array of a strong type; a weak one takes the dtype of `aval` where JAX would promote it to
    that.
    """
    array = leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
    if getattr(array.aval, "weak_type", False) and dtypes.promote_types(aval.dtype, array.dtype) is not None:
        fits = dtypes.result_type(array, core.ShapedArray((), aval.dtype)) == aval.dtype
        array = lax_internal._convert_element_type(
            array, aval.dtype if fits else array.dtype, weak_type=False
        )
    return array


def is_array_like(leaf: Any) -> bool:
    """Whether JAX takes it for an array: arrays, tracers, numbers, shapes with dtypes; no strings, no
    objects.
    """
    if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct, bool, int, float, complex)):
        return True
    return (isinstance(leaf, (np.ndarray, np.generic)) and leaf.dtype.kind not in "OSUMmV") or hasattr(
        leaf, "__jax_array__"
    )


def config_key() -> Any:
    """The settings of JAX under which a trace was made: another key, another program."""
    return config.trace_context()


def settings() -> dict[str, Any]:
    """All settings of JAX, by name, as they are in this thread now."""
    return {name: state.value for name, state in config.config_states.items()}


def weak(leaf: Any) -> bool:
    """Whether an argument has a weak type, as numbers of Python have: it adapts to what it meets."""
    return bool(getattr(jax.typeof(leaf), "weak_type", False))


def same_type(array: Any, aval: Any) -> bool:
    """Whether an array has this shape and dtype."""
    return array.shape == aval.shape and array.dtype == aval.dtype


_KEY_TYPES = {f"key<{impl.tag}>": prng.KeyTy(impl) for impl in prng.prngs.values()}


def type_of_aval(aval: Any) -> Type:
    """Our type of a JAX array type; weak types, shardings and memory spaces are dropped.

    Raises:
        IRTypeError: we have no such type: `float0`, references, tokens, symbolic sizes.
    """
    known = type(aval) is core.ShapedArray  # a reference has a dtype and a shape too
    found = _TYPES.get((aval.dtype, aval.shape)) if known else None
    if found is None:
        found = _new_type(aval)
        if known:
            _TYPES[aval.dtype, aval.shape] = found
    return found


_TYPES: dict[Any, Type] = {}


def _new_type(aval: Any) -> Type:
    element = _element_type(aval)
    for size in aval.shape:
        if type(size) is not int:
            raise IRTypeError(f"{aval} has the symbolic size {size}; stategrad needs sizes that are numbers")
    return Type(element, aval.shape)


def _element_type(aval: Any) -> DType:
    found = getattr(aval, "dtype", None)
    if found is None or not isinstance(aval, core.ShapedArray):
        raise IRTypeError(f"{aval} is not the type of an array")
    if isinstance(found, prng.KeyTy):
        if _KEY_TYPES.setdefault(found.name, found) != found:
            raise IRTypeError(f"there are two PRNG implementations with the tag of {found.name}")
        return dtype(found.name)
    if dtypes.issubdtype(found, dtypes.extended):
        raise IRTypeError(f"{aval} has an element type that stategrad does not know")
    return dtype_of(found)


def jax_dtype(element: DType) -> Any:
    """The dtype of JAX arrays with this element type.

    Raises:
        IRTypeError: a PRNG implementation of that name is not registered with JAX.
    """
    if element.numpy is not None:
        return element.numpy
    found = _KEY_TYPES.get(element.name)
    if found is None:
        raise IRTypeError(f"JAX has no PRNG implementation for {element}; it has {', '.join(_KEY_TYPES)}")
    return found


def aval_of_type(of: Type) -> core.ShapedArray:
    """The JAX array type, strong and without a sharding, of one of ours."""
    return core.ShapedArray(of.shape, jax_dtype(of.dtype))


def physical_type(of: Type) -> Type:
    """The type that a value has in StableHLO: PRNG keys are rows of unsigned integers, all else is itself."""
    if of.dtype.kind != "k":
        return of
    return type_of_aval(core.physical_aval(aval_of_type(of)))
