"""What may happen between passes: verifying, printing, timing, dumping. All of them are `Hook`s."""

import sys
from dataclasses import field
from pathlib import Path
from typing import TextIO

from stategrad.ir import to_text, verify
from stategrad.ir.record import record

from .pipeline import Hook, Step


@record
class Together:
    """Several hooks as one, in order."""

    hooks: tuple[Hook, ...]

    def __call__(self, step: Step) -> None:
        for hook in self.hooks:
            hook(step)


def together(*hooks: Hook) -> Together:
    """Several hooks as one, in order."""
    return Together(hooks)


@record
class Verify:
    """Verifies every module; what breaks a rule counts as a failure of the pass that made it."""

    locations: bool = False
    """Whether every operation must lead to a line of the user's, as in traced programs."""

    def __call__(self, step: Step) -> None:
        if step.changed:
            verify(step.module, self.locations)


@record
class Print:
    """Prints every module that changed, under a line that names the pass."""

    file: TextIO = field(default_factory=lambda: sys.stderr)
    locations: bool = False

    def __call__(self, step: Step) -> None:
        change = "" if step.changed else " (nothing changed)"
        print(f"// ---- {step.index}: {step.title}{change}", file=self.file)
        if step.changed:
            print(to_text(step.module, self.locations), file=self.file)


@record
class Timing:
    """Adds up the seconds that each pass took, by its text; `str` gives a table, the slowest first."""

    seconds: dict[str, float] = field(default_factory=dict)

    def __call__(self, step: Step) -> None:
        if step.done is not None:
            self.seconds[step.title] = self.seconds.get(step.title, 0.0) + step.seconds

    def __str__(self) -> str:
        slowest = sorted(self.seconds.items(), key=lambda item: -item[1])
        return "\n".join(f"{seconds * 1e3:10.3f} ms  {title}" for title, seconds in slowest)


@record
class DumpTo:
    """Writes every module to `folder`: `00-input.sg`, `01-linearize.sg`, …; line one says what made it."""

    folder: Path | str

    def __call__(self, step: Step) -> None:
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        name = step.done.name if step.done is not None else "input"
        path = folder / f"{step.index:02}-{name}.sg"
        path.write_text(f"// {step.index}: {step.title}\n{to_text(step.module)}")
