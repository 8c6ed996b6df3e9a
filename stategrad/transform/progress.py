"""Progress of loops, shown by a host callback while the compiled program runs."""

import functools
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from stategrad import jax_compat as compat
from stategrad.errors import TraceError
from stategrad.ir.record import record
from stategrad.traced_programs import bind, open_program
from stategrad.user_frame import user_line

from .loop_arguments import positive

Values = Callable[[dict[str, Any]], Mapping[str, Any]]
_REPORTS = 20
_WIDTH = 20


@record
class ProgressBar:
    """Shows on standard error how far a loop is: the `pbar` of loops. Results and gradients stay as they are.

    Args:
        freq: how many steps lie between two reports. The last step always reports.
        count: about how many reports there are; by default 20.
        desc: a text in front, or a pair `(format, values)`. `values` gets a dictionary with the step `i`,
            and the `carry`, `x` and `y` of that step, and gives what fills the format:
            `("loss {loss:.3f}", lambda d: {"loss": d["y"]})`. It is traced: it may compute, and read States.

    Raises:
        TraceError: a number is not 1 or more, both are given, or `desc` is neither.
    """

    freq: int | None = None
    count: int | None = None
    desc: str | tuple[str, Values] | None = None

    def __post_init__(self) -> None:
        for name in ("freq", "count"):
            if getattr(self, name) is not None:
                positive(getattr(self, name), name, "ProgressBar")
        if self.freq is not None and self.count is not None:
            raise TraceError(f"ProgressBar has both freq and count{user_line()}; give one of them")
        if not isinstance(self.desc, (str, type(None))) and not _is_pair(self.desc):
            raise TraceError(
                f"desc of ProgressBar is {self.desc!r}{user_line()}, "
                "expected a text or a pair (format, function)"
            )

    def every(self, total: int) -> int:
        """How many of `total` steps lie between two reports."""
        return self.freq or max(1, total // (self.count or _REPORTS))


def _is_pair(desc: Any) -> bool:
    return isinstance(desc, tuple) and len(desc) == 2 and isinstance(desc[0], str) and callable(desc[1])


class Reporter:
    """Reports on one loop, from inside its program.

    Args:
        bar: what to report, and when.
        total: how many steps the loop has.
        ordered: keep the order of reports even where steps do not depend on each other.
    """

    def __init__(self, bar: ProgressBar, total: int, ordered: bool) -> None:
        text, self._values = bar.desc if isinstance(bar.desc, tuple) else (bar.desc, None)
        self._every = bar.every(total)
        self._total = total
        self._display = _display(text, total, ordered)

    def report(self, number: Any, **values: Any) -> None:
        """Emits a report after step `number` of the loop, if that step is one to report."""
        done = number + 1
        data = {} if self._values is None else self._data({"i": number, **values})
        wanted = (done % self._every == 0) | (done == self._total)
        jax.lax.cond(wanted, self._display.emit, lambda *_: None, done, jax.lax.stop_gradient(data))

    def _data(self, values: dict[str, Any]) -> dict[str, Any]:
        data = self._values(values) if self._values is not None else {}
        if not isinstance(data, Mapping) or not all(map(compat.is_array_like, data.values())):
            raise TraceError(
                f"the function in desc of ProgressBar gives {data!r}{user_line()}, "
                "expected a dictionary of numbers"
            )
        return {name: jnp.asarray(value) for name, value in data.items()}


def reporter(pbar: Any, total: int, loop: str, ordered: bool) -> Reporter | None:
    """What reports for a loop of `total` steps; a number means a report every so many steps.

    Raises:
        TraceError: `pbar` is no ProgressBar and no number.
    """
    if pbar is None:
        return None
    if isinstance(pbar, int) and not isinstance(pbar, bool):
        pbar = ProgressBar(freq=pbar)
    if not isinstance(pbar, ProgressBar):
        raise TraceError(
            f"pbar of {loop} is {pbar!r}{user_line()}, expected a ProgressBar or a number of steps"
        )
    return Reporter(pbar, total, ordered)


# ------------------------------------------------------------------------------------------------ on the host
# Loops that show the same share a callback: programs that differ in nothing else are equal and compiled once.
@functools.lru_cache(maxsize=64)
def _display(text: str | None, total: int, ordered: bool) -> "_Display":
    return _Display(text, total, ordered)


class _Display:
    """Writes the lines. With values, `text` is a format."""

    def __init__(self, text: str | None, total: int, ordered: bool) -> None:
        self._text = text
        self._total = total
        self._ordered = ordered
        self._equations: dict[Any, Any] = {}
        self._first = self._last = (0, 0.0)

    def emit(self, done: Any, data: dict[str, Any]) -> None:
        """Adds the callback to the program that is being traced."""
        leaves, tree = jax.tree.flatten((done, data))
        types = tuple((x.shape, x.dtype) for x in leaves)
        found = self._equations.get((tree, types))
        if found is None:
            found = self._equations[tree, types] = self._callback(tree, types)
        bind(found.primitive, found.params, found.ctx, leaves)

    def _callback(self, tree: Any, types: Any) -> Any:
        """The equation of a callback, made once: `jax.debug.callback` makes another function at each call."""

        def emit(*leaves: Any) -> None:
            show = functools.partial(self._show, tree)
            jax.debug.callback(show, *leaves, ordered=self._ordered)

        program = jax.make_jaxpr(emit)(*(jax.ShapeDtypeStruct(*t) for t in types))
        return open_program(program)[0].eqns[-1]

    def _show(self, tree: Any, *leaves: Any) -> None:
        done, data = tree.unflatten(map(_number, leaves))
        done, now = int(done), time.monotonic()
        if done <= self._last[0] or not self._first[0]:  # a loop of the same kind has begun
            self._first = done, now
        self._last = done, now
        text = self._text.format(**data) if self._text and data else self._text or "loop"
        bar = "#" * (_WIDTH * done // self._total)
        share = f"{100 * done // self._total:3d}% |{bar:{_WIDTH}}| {done}/{self._total}"
        _write(f"{text} {share}{self._remaining()}", done == self._total)

    def _remaining(self) -> str:
        (first, then), (done, now) = self._first, self._last
        if done in (first, self._total):
            return ""
        return f", {(now - then) / (done - first) * (self._total - done):.1f} s left"


def _write(line: str, last: bool) -> None:
    """A line of its own, or on a terminal in place of the one before."""
    terminal = sys.stderr.isatty()
    end = "\n" if last or not terminal else ""
    sys.stderr.write(f"\r{line}\033[K{end}" if terminal else f"{line}{end}")
    sys.stderr.flush()


def _number(value: Any) -> Any:
    array = jax.device_get(value)
    return array[()] if array.ndim == 0 else array
