"""The call of a function that was called before, as fast as Python can make it.

Everything that costs a tenth of a microsecond counts here: what C++ does for a small program takes about
fifteen. So this is one function without attributes of its own, and it is given up for the next one as soon as
anything is not as it was.
"""

from collections.abc import Callable
from itertools import repeat
from typing import Any

from stategrad.jax_compat import EAGER, INFS, NANS, TRACE
from stategrad.resident import LOCK, RESIDENT, Operands

from .compiled import Mismatch
from .results import ALONE


def repeated(
    operands: Operands,
    jitted: Callable[..., Any],
    build: Callable[[list[Any]], Any],
    same: Callable[[], bool],
    otherwise: Callable[..., Any],
    failed: Callable[[Exception], None],
) -> Callable[..., Any]:
    """A function that runs `jitted` on these operands, if they are still those of the call that ran last.

    Args:
        build: puts the results together.
        same: whether all that the function reads is still what it was.
        otherwise: what to call instead, if something else has happened.
        failed: adds to an error of the run what it has done.
    """
    given, rest = operands.given, operands.rest
    alone = build is ALONE
    runs = map(jitted, repeat(given), repeat(rest))

    def call(*args: Any, **kwargs: Any) -> Any:
        # While a call runs, RESIDENT.now is None: who comes from a host callback of it does not wait here.
        if RESIDENT.now is operands and TRACE.value is EAGER and not (NANS.value or INFS.value) and same():
            with LOCK:
                if RESIDENT.now is operands:
                    results = None
                    try:
                        RESIDENT.now, RESIDENT.running = None, operands
                        rest[0], rest[1] = args, kwargs
                        # Not a call of Python's, for the sake of interrupts: see `Operands.run`.
                        for given[0], results in runs:  # noqa: B007
                            break
                    except (Mismatch, TypeError):
                        pass
                    except (RuntimeError, ValueError) as error:
                        failed(error)
                        raise
                    finally:
                        rest[0] = rest[1] = None
                        if RESIDENT.running is operands:
                            RESIDENT.now, RESIDENT.running = operands, None
                        else:
                            operands.rejoin(results is not None)
                    if results is not None:
                        return results[0] if alone else build(results)
        return otherwise(*args, **kwargs)

    return call
