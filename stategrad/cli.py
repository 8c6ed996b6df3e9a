"""The command `stategrad`."""

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

COMMANDS = {
    "demo": "train a classifier of handwritten digits and show what happens to the program",
}
"""Name and help of each command; the module of that name has `main(arguments) -> exit status`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; by default the one named on the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="stategrad", description="Compiled gradients of stateful JAX programs."
    )
    parser.add_argument("--version", action="version", version=importlib.metadata.version("stategrad"))
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, help in COMMANDS.items():
        commands.add_parser(name, help=help, add_help=False)
    chosen, rest = parser.parse_known_args(arguments)
    return _run(chosen.command, rest)


def _run(command: str, arguments: list[str]) -> int:
    # Commands need packages of their own extra: their modules are loaded by name when they are asked for.
    try:
        module = importlib.import_module(f"stategrad.{command}")
    except ModuleNotFoundError as error:
        advice = f"pip install 'stategrad[{command}]'"
        print(f"stategrad {command} needs {error.name}, which is not installed: {advice}", file=sys.stderr)
        return 1
    return module.main(arguments)
