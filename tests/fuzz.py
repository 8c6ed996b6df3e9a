"""Random programs without end: `tools/fuzz 200 --seed 1000`. A failure is shrunk and written as a golden
file.
"""

import argparse
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from stategrad.ir import Module, to_text

from .program_checks import CHECKS, higher_orders
from .random_programs import Program, random_program
from .shrink import shrink


def failure(program: Program) -> str:
    """What goes wrong with a program, or nothing."""
    for check in (*CHECKS, higher_orders):
        try:
            check(program)
        except Exception as e:
            return f"{check.__name__}: {type(e).__name__}: {e}"
    return ""


def candidate(program: Program) -> str:
    """A golden file with the program, to be completed by `pytest --update-golden`."""
    options = {
        "wrt": [f"${c.name}" for c in program.wrt],
        "args": [str(i) for i in program.args],
        "final": [f"${c.name}" for c in program.final],
    }
    shown = "".join(f", {key} = [{', '.join(value)}]" for key, value in options.items() if value)
    text = to_text(Module.of([program.main]), locations=False)
    return f"// RUN: gradient{{of = @{program.main.name}{shown}}}, thread-state\n{text}// ---- result\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries programs; the exit status is 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, prog="tools/fuzz")
    parser.add_argument("programs", type=int, help="how many programs to try")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the first one (default 0)")
    parser.add_argument(
        "--keep", type=Path, default=Path(), help="where to write failing programs (default: here)"
    )
    given = parser.parse_args(arguments)
    failed = 0
    for seed in range(given.seed, given.seed + given.programs):
        program = random_program(seed)
        told = failure(program)
        if told:
            failed += 1
            law = told.partition(":")[0]
            small = shrink(program, lambda p, law=law: failure(p).startswith(law))
            path = given.keep / f"fuzz-{seed}.sg"
            path.write_text(candidate(small))
            print(f"seed {seed}: {failure(small)}\n  shrunk to {path}")
    print(f"{given.programs} programs from seed {given.seed}: {failed or 'none'} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        traceback.print_exc(limit=0)
        sys.exit(130)
