"""What can go wrong with passes."""

from pathlib import Path

from stategrad.ir import Location


class PassTextError(ValueError):
    """A text does not name a pipeline: an unknown pass or option, or a value of the wrong kind."""


class PassError(Exception):
    """A pass failed. The cause is chained; the message says which pass, where, and how to see it again.

    Attributes:
        position: which pass of the pipeline, from 1.
        spec: the text of the failing pass.
        done: the texts of the passes that ran before it.
        location: the operation that it was at, if known.
        reproducer: a file with the program that the pass was given, and a `// RUN:` line.
    """

    def __init__(
        self,
        cause: BaseException,
        spec: str,
        done: tuple[str, ...] = (),
        location: Location | None = None,
        reproducer: Path | None = None,
    ) -> None:
        self.position, self.spec, self.done = len(done) + 1, spec, done
        self.location, self.reproducer = location, reproducer
        lines = [f"pass {self.position}, `{spec}`, failed: {type(cause).__name__}: {cause}"]
        if location is not None:
            lines.append(f"  at {location.source}")
        if done:
            lines.append(f"  passes before it: {', '.join(done)}")
        if reproducer is not None:
            lines.append(f"  the program it was given: {reproducer}")
        super().__init__("\n".join(lines))
