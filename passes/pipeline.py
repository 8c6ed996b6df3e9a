"""Passes and pipelines: `Pass` objects that print and parse back, run one after another, a hook between."""

import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from stategrad.ir import DerivativeError, IRError, Location, Module, Operation, to_text
from stategrad.ir.lazy import Lazy
from stategrad.ir.record import record

from .errors import PassError, PassTextError
from .spec import option_types, options_of, print_option

if TYPE_CHECKING:
    from . import read_specs as reader
else:
    reader = Lazy("stategrad.passes.read_specs")


class Pass(ABC):
    """A step from module to module. Subclasses are records or frozen dataclasses; fields are options.

    `name` is what texts call it; the first line of the docstring is its help.
    """

    name: ClassVar[str] = ""

    @abstractmethod
    def run(self, module: Module) -> Module:
        """The transformed module; the same object when nothing changed."""

    @classmethod
    def help(cls) -> str:
        """One line on what the pass does."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    def __str__(self) -> str:
        hints = option_types(type(self))
        shown = [
            f"{f.name} = {print_option(hints[f.name], getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != _default(f)
        ]
        return f"{self.name}{{{', '.join(shown)}}}" if shown else self.name


P = TypeVar("P", bound=Pass)

PASSES: dict[str, type[Pass]] = {}
"""Every pass by its name; filled by importing `stategrad.passes`."""


def register_pass(cls: type[P]) -> type[P]:
    """Makes a pass known to `parse_pipeline`: a class decorator.

    Raises:
        PassTextError: the name is missing or taken, or the class has no help.
    """
    if not cls.name or not cls.help():
        raise PassTextError(f"the pass {cls.__name__} needs a name and a docstring")
    if PASSES.setdefault(cls.name, cls) is not cls:
        raise PassTextError(f"there are two passes called {cls.name}")
    return cls


@record
class Step:
    """What a hook is told: the module after `done` (None: before the first pass), and how that came about."""

    index: int
    done: Pass | None
    module: Module
    seconds: float = 0.0
    changed: bool = True

    @property
    def title(self) -> str:
        """The text of the pass, or "input"."""
        return "input" if self.done is None else str(self.done)


Hook = Callable[[Step], None]
"""Is called with the first module and after each pass; what it raises counts as a failure of that pass."""


@record
class Pipeline:
    """Passes in order. `str` gives the text that `parse_pipeline` reads."""

    passes: tuple[Pass, ...] = ()

    @staticmethod
    def of(*passes: Pass) -> "Pipeline":
        """A pipeline of these passes."""
        return Pipeline(passes)

    def run(self, module: Module, hook: Hook | None = None, folder: Path | None = None) -> Module:
        """Runs the passes; `hook` sees the module before the first and after each.

        Raises:
            PassError: a pass failed, or its hook did; it names the pass. The program it was given is left
                as a file in `folder` (by default in the folder for temporary files).
        """
        if hook is not None:
            hook(Step(0, None, module))
        for index, step in enumerate(self.passes, 1):
            try:
                module = _run_one(index, step, module, hook)
            except Exception as e:
                done = tuple(map(str, self.passes[: index - 1]))
                # Something without a derivative is no fault of the pass: there is nothing to reproduce.
                mistake = isinstance(e, DerivativeError) and folder is None
                file = None if mistake else _reproducer(module, step, folder)
                raise PassError(e, str(step), done, _guilty(e.__traceback__), file) from e
        return module

    def __add__(self, other: "Pipeline") -> "Pipeline":
        return Pipeline(self.passes + other.passes)

    def __str__(self) -> str:
        return ", ".join(map(str, self.passes))


def parse_pipeline(text: str) -> Pipeline:
    """The pipeline that the text names: `linearize{of = @loss, wrt = [$w]}, transpose, dce`.

    Raises:
        PassTextError: there is no such pass or option, or a value does not fit.
    """
    return Pipeline(tuple(_make(name, given) for name, given in reader.parse_specs(text)))


def _make(name: str, given: dict[str, Any]) -> Pass:
    cls = PASSES.get(name)
    if cls is None:
        raise PassTextError(f"there is no pass {name!r}; there are: {', '.join(sorted(PASSES))}")
    options = options_of(cls, given)
    missing = [f.name for f in fields(cls) if f.name not in options and _default(f) is MISSING]
    if missing:
        raise PassTextError(f"{name} needs the option {missing[0]}: {name}{{{missing[0]} = …}}")
    return cls(**options)


def _default(field: Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _run_one(index: int, step: Pass, module: Module, hook: Hook | None) -> Module:
    start = time.perf_counter()
    made = step.run(module)
    if not isinstance(made, Module):
        raise TypeError(f"{type(step).__name__}.run returned {made!r}, not a Module")
    if hook is not None:
        hook(Step(index, step, made, time.perf_counter() - start, made is not module))
    return made


def _guilty(traceback: TracebackType | None) -> Location | None:
    """Where the operation comes from that the innermost rule was at: passes and rules call it `op`."""
    found = None
    while traceback is not None:
        op = traceback.tb_frame.f_locals.get("op")
        found = op.location if isinstance(op, Operation) else found
        traceback = traceback.tb_next
    return found


def _reproducer(module: Module, step: Pass, folder: Path | None) -> Path | None:
    """Leaves the program that a pass failed on; None if that cannot be printed."""
    try:
        text = to_text(module)
    except IRError:
        return None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(".sg", f"{step.name}-", folder)
    with os.fdopen(handle, "w") as file:
        file.write(f"// RUN: {step}\n{text}")
    return Path(name)
