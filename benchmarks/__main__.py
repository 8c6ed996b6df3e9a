"""Runs every topic, or those named on the command line, and writes RESULTS.md and the plots beside it."""

import argparse
import time
from dataclasses import replace

from . import compiling, depth, dispatch, imports, jacobians, memory, running, staging
from .measure import FULL
from .report import Results, machine
from .table import markdown

TOPICS = {
    "dispatch": dispatch,
    "staging": staging,
    "compiling": compiling,
    "running": running,
    "memory": memory,
    "jacobians": jacobians,
    "imports": imports,
    "depth": depth,
}


def titles() -> dict[str, str]:
    """What each topic is about, from the docstring of its module."""
    return {name: (topic.__doc__ or "").strip().partition("\n")[0] for name, topic in TOPICS.items()}


def main() -> None:
    """Entry point of `python -m benchmarks`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("topics", nargs="*", metavar="topic", help=f"of {', '.join(TOPICS)}; default: all")
    parser.add_argument("--rounds", type=int, default=FULL.rounds, help="turns of each measurement")
    given = parser.parse_args()
    names = given.topics or list(TOPICS)
    if unknown := set(names) - TOPICS.keys():
        parser.error(f"there is no topic {min(unknown)}; there are {', '.join(TOPICS)}")
    results = Results()
    for name in names:
        start, on = time.perf_counter(), machine()
        tables = TOPICS[name].run(replace(FULL, rounds=given.rounds))
        results.put(name, tables, on)
        results.write(titles())  # after each topic: a run that is cut short keeps what it has
        for table in tables:
            print("\n".join(markdown(table, {})))
        print(f"{name} took {time.perf_counter() - start:.0f} s\n", flush=True)


if __name__ == "__main__":
    main()
