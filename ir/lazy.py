"""Modules that are imported at their first use: what most programs never need must not slow every import."""

from importlib import import_module
from typing import Any


class Lazy:
    """Stands for a module, and imports it when an attribute is first asked for.

    `import stategrad` costs little more than `import jax` because the readers of texts, and Lark with them,
    wait behind one. All else is imported at the top of its file. Type checkers see the module itself:

        if TYPE_CHECKING:
            import networkx
        else:
            networkx = Lazy("networkx")
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(import_module(self._name), attribute)
        setattr(self, attribute, found)  # later uses are plain attributes
        return found
