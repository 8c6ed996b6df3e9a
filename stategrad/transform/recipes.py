"""The recipe of `jit`: the function itself."""

from stategrad.ir.record import record
from stategrad.trace import Traced

from .staging import Derived


@record
class AsIs:
    """What is made of a traced function is that function."""

    def derive(self, traced: Traced) -> Derived:
        """No passes of its own."""
        return Derived((), traced.tree.unflatten, traced.results)
