"""Names for values and functions, from what JAX knows of the user's."""

import functools
import re
from typing import Any

_INDEX = re.compile(r"\[['\"]?([^\]'\"]*)['\"]?\]")
_OTHER = re.compile(r"[^\w.]+", re.ASCII)


def function_name(jaxpr: Any) -> str:
    """The name of the Python function that a jaxpr was traced from."""
    return readable(jaxpr.debug_info.func_name or "function")


def parameter_names(jaxpr: Any, count: int) -> list[str]:
    """For each of `count` parameters of a jaxpr the user's name, or nothing where JAX added it."""
    known = list(jaxpr.debug_info.arg_names or ())
    return [readable(n) if n else "" for n in ([""] * (count - len(known)) + known)[:count]]


def result_name(equation: Any) -> str:
    """A name for the results of an equation: the primitive's, or that of a function with a custom rule."""
    program = equation.params.get("call_jaxpr")
    return equation.primitive.name if program is None else function_name(getattr(program, "jaxpr", program))


@functools.lru_cache(maxsize=4096)
def readable(name: str) -> str:
    """A name that the IR's text can hold: `params['w'][0]` is `params.w.0`."""
    kept = _OTHER.sub("_", _INDEX.sub(r".\1", name)).strip("._")
    return f"_{kept}" if not kept or kept[0].isdigit() else kept
