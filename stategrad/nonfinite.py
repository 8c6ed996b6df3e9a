"""From a tripped wire to the operation that made the first value that is not finite.

The program that ran is evaluated again, operation by operation, on the operands that it had: see
`docs/gradients.md`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from stategrad.ir import Derived, Function, Location, Operation, Region, Value, walk
from stategrad.ir.evaluate import Machine
from stategrad.ir.record import record

from .errors import NonFiniteError


@record
class Finding:
    """The first operation that made a value that is not finite out of finite ones, or a NaN out of no NaN.

    Attributes:
        steps: the loops around it, outermost first, each with the step that it was in.
        operands: the values that it had.
        result: the first result that is not finite, and `index` where in it.
    """

    op: Operation
    steps: tuple[tuple[Operation, int], ...]
    operands: tuple[Any, ...]
    result: np.ndarray
    index: tuple[int, ...]


@record
class Trip:
    """That a call gave something that is not finite.

    Attributes:
        subject: what was called, as a person calls it.
        tripped: what of its results is not finite, in words.
        commits: whether it would have written to States.
        reverse: whether it belongs to a derivative in reverse: all that is derived in it is `backward` then,
            also what is computed on the way forwards.
        nan: whether there is a NaN among them. An infinity that came in is not to blame then: it may be a
            mask.
    """

    subject: str
    tripped: tuple[str, ...]
    commits: bool = True
    reverse: bool = False
    nan: bool = False

    @staticmethod
    def of(
        subject: str,
        names: Sequence[str],
        found: Sequence[Any],
        *,
        commits: bool = True,
        reverse: bool = False,
    ) -> "Trip":
        """A trip of a call with these results, which a person calls by these names."""
        tripped = tuple(n for n, x in zip(names, found, strict=True) if first_bad(x) is not None)
        nan = any(first_bad(x, nan=True) is not None for x in found)
        return Trip(subject, tripped, commits, reverse, nan)

    @property
    def head(self) -> str:
        """The first line of the error."""
        gave = ", ".join(self.tripped) or "something"
        done = "; nothing was committed" if self.commits else ""
        return f"{self.subject} gave {gave} that is not finite{done}"

    def by_inputs(self, names: Sequence[str], arrays: Sequence[Any]) -> NonFiniteError | None:
        """The error if something that came in is to blame; `names` are what a person calls each."""
        for array, what in zip(arrays, names, strict=True):
            index = first_bad(array, self.nan)
            if index is not None:
                text = f"{self.head}\n{_input(what, array, index)}"
                return NonFiniteError(text, phase="input", inputs=(what,), index=index, tripped=self.tripped)
        return None

    def by_operations(
        self, function: Function, operands: Sequence[Any], names: Sequence[str], arrays: Sequence[Any]
    ) -> NonFiniteError | None:
        """The error if an operation of a pure function that ran on these operands is to blame.

        Args:
            function: the function.
            operands: what it was given.
            names: what a person calls each of `arrays`, which came in: infinite ones are mentioned where the
                operation had an infinite operand.
            arrays: see `names`.
        """
        found = find(function, [_host(x, v) for x, v in zip(operands, function.params, strict=True)])
        if found is None:
            return None
        infinite = [
            _input(what, array, index)
            for what, array in zip(names, arrays, strict=True)
            if (index := first_bad(array)) is not None
        ]
        lines = infinite if any(first_bad(x) is not None for x in found.operands) else []
        return _error(self, found, self.reverse or _is_transposed(function), lines)

    def unexplained(self) -> NonFiniteError:
        """The error if nothing is to blame."""
        return NonFiniteError(
            f"{self.head}\n  replay    evaluated operation by operation, the program stays finite: the "
            "compiled one rounds or fuses differently; look for overflow near the limits of the dtype",
            phase="unknown",
            tripped=self.tripped,
        )

    def explained(self, function: Function, operands: Sequence[Any], names: Sequence[str]) -> NonFiniteError:
        """The error for the pure function that ran, by what it was given, which a person calls by these
        names, or else by its operations.
        """
        error = self.by_inputs(names, operands) or self.by_operations(function, operands, names, operands)
        return error or self.unexplained()


def _input(what: str, array: Any, index: tuple[int, ...]) -> str:
    where = f" at index {list(index)}" if index else ""
    return f"  input     {what} holds {np.asarray(array)[index]}{where} on entry"


def first_bad(array: Any, nan: bool = False) -> tuple[int, ...] | None:
    """The first index at which an array is not finite, or is NaN (`nan`); None if there is none, or the array
    holds no numbers.
    """
    array = np.asarray(array) if isinstance(array, (int, float, complex)) else array
    dtype = getattr(array, "dtype", None)
    if dtype is None or not isinstance(dtype, np.dtype):
        return None
    array = np.asarray(array)
    if dtype.kind not in "fcV" or not array.size:
        return None
    wide = array if dtype.kind == "c" else array.astype(np.float64)
    bad = np.argwhere(np.isnan(wide) if nan else ~np.isfinite(wide))
    return tuple(int(i) for i in bad[0]) if len(bad) else None


def find(function: Function, operands: Sequence[Any]) -> Finding | None:
    """Evaluates a pure function until an operation makes something that is not finite out of finite operands,
    or a NaN out of operands without one.
    """
    machine = _Watch()
    with np.errstate(all="ignore"):
        try:
            machine.run(function.body, operands)
        except _Found as found:
            return found.finding
    return None


def _host(x: Any, param: Value) -> Any:
    dtype = param.type.dtype.numpy
    return x if dtype is None else np.asarray(x, dtype)


class _Found(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self.finding = finding


class _Watch(Machine):
    """Evaluates, knows the loop steps that it is in, and stops at the first operation to blame."""

    def __init__(self) -> None:
        super().__init__({})
        self._loops: list[list[Any]] = []

    def run(self, region: Region, args: Sequence[Any]) -> list[Any]:
        if self._loops and region in self._loops[-1][0].regions[-1:]:
            self._loops[-1][1] += 1
        env: dict[Value, Any] = dict(zip(region.params, args, strict=True))
        for op in region.operations:
            operands = [env[v] for v in op.operands]
            env.update(zip(op.results, self._step(op, operands), strict=True))
        return [env[v] for v in region.results]

    def _step(self, op: Operation, operands: list[Any]) -> Sequence[Any]:
        if op.regions:
            self._loops.append([op, -1])
        found = op.opdef.evaluate_op(self, op, operands)
        if op.regions:
            self._loops.pop()
        elif op.operands and all(first_bad(x, nan=True) is None for x in operands):
            finite = all(first_bad(x) is None for x in operands)
            for result in found:
                index = first_bad(result, nan=not finite)
                if index is not None:
                    raise _Found(Finding(op, self._steps(), tuple(operands), np.asarray(result), index))
        return found

    def _steps(self) -> tuple[tuple[Operation, int], ...]:
        loops = [(op, count) for op, count in self._loops if op.name in ("scan", "while")]
        return tuple(
            (op, op.attributes["length"] - 1 - count if op.attributes.get("reverse") else count)
            for op, count in loops
        )


def phase_of(location: Location, reverse: bool) -> str:
    """`forward`, `tangent` or `backward`: by the passes that derived an operation.

    Args:
        reverse: whether the program is one of a derivative in reverse.
    """
    passes = _passes(location)
    if "transpose" in passes:
        return "backward"
    derived = not passes.isdisjoint(("linearize", "jvp"))
    return "forward" if not derived else "backward" if reverse else "tangent"


def _passes(location: Location) -> set[str]:
    found = set()
    while isinstance(location, Derived):
        found.add(location.by)
        location = location.base
    return found


def _is_transposed(function: Function) -> bool:
    """Whether a program has something of a derivative in reverse."""
    return any("transpose" in _passes(op.location) for op in walk(function.body))


def _error(trip: Trip, found: Finding, reverse: bool, more: Sequence[str]) -> NonFiniteError:
    op, phase = found.op, phase_of(found.op.location, reverse)
    lines = [trip.head, f"  phase     {phase}", f"  operation {op.name} ({op.location.source})"]
    for loop, step in found.steps:
        length = loop.attributes.get("length")
        of = f" of {length}" if length is not None else ""
        lines.append(f"  in        step {step}{of} of the {loop.name} ({loop.location.source})")
    where = f" at index {list(found.index)}" if found.index else ""
    lines.append(f"  result    {found.result[found.index]}{where} of {op.results[0].type}")
    for value, array in zip(op.operands, found.operands, strict=True):
        lines.append(f"  operand   {_described(value, array, found)}")
    lines.extend(more)
    steps = tuple(step for _, step in found.steps)
    return NonFiniteError(
        "\n".join(lines),
        phase=phase,
        operation=op.name,
        location=op.location.source,
        steps=steps,
        index=found.index,
        inputs=tuple(v.name for v in op.operands if v.name),
        tripped=trip.tripped,
    )


def _described(value: Value, array: Any, found: Finding) -> str:
    text = f"%{value.name or '…'}: {value.type}"
    if value.type.dtype.numpy is None or not value.type.size:
        return text
    array = np.asarray(array)
    if value.type.rank == 0:
        return f"{text} = {array}"
    here = f", {array[found.index]} at that index" if array.shape == found.result.shape else ""
    return f"{text} from {array.min()} to {array.max()}{here}" if array.dtype.kind in "fiu" else text + here
