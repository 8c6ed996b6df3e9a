"""From a trace to a plan."""

from typing import Any

from stategrad.trace import Traced

from .closed_over import with_arrays_as_parameters
from .compiled import Signature, compiled
from .plan import Plan
from .staging import Recipe, derive
from .watched import WatchedPlan


def plan_of(
    traced: Traced, recipe: Recipe, args: Any, kwargs: Any, *, donate: bool = False, watched: bool = False
) -> Plan:
    """How to call what `recipe` makes of a traced function, with arguments like these.

    Args:
        donate: whether the buffers of written States may be reused.
        watched: look at every result before it is returned or committed.

    Raises:
        GradientError: what the recipe asks for has no derivative.
    """
    traced = with_arrays_as_parameters(traced)
    derived = derive(recipe, traced, whole=watched)
    program = compiled(traced, derived, Signature(args, kwargs), donate, watched)
    return (WatchedPlan if watched else Plan)(program, traced, derived)
