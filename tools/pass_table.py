"""The table of passes in docs/ir.md, made from their classes: `python -m tools.pass_table` rewrites it."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from typing import Annotated, get_args, get_origin

from stategrad.passes import PASSES, Pass
from stategrad.passes.spec import option_types, print_option

from .op_table import PAGE, between

BEGIN, END = "<!-- passes: begin -->\n", "<!-- passes: end -->\n"
_HEADER = "| pass | what it does | options |\n|---|---|---|\n"


def table() -> str:
    """One line for each pass, by name."""
    ours = [PASSES[name] for name in sorted(PASSES) if PASSES[name].__module__.startswith("stategrad.")]
    return _HEADER + "".join(f"| `{p.name}` | {p.help()} | {'<br>'.join(_options(p))} |\n" for p in ours)


def with_table(page: str) -> str:
    """The page with a fresh table between its markers."""
    return between(page, BEGIN, table(), END)


def _options(cls: type[Pass]) -> Iterator[str]:
    hints, notes = option_types(cls), _notes(cls)
    for option in fields(cls):
        note = notes.get(option.name)
        yield f"`{option.name} = {_default(option, hints[option.name])}`{f': {note}' if note else ''}"


def _default(option: Field[object], hint: object) -> str:
    if option.default is not MISSING:
        return print_option(hint, option.default)
    return f"{get_args(hint)[1]}…" if get_origin(hint) is Annotated else "…"


def _notes(cls: type[Pass]) -> dict[str, str]:
    """The strings that stand under the fields."""
    (found,) = ast.parse(inspect.getsource(cls)).body
    notes = {}
    for pair in pairwise(found.body if isinstance(found, ast.ClassDef) else ()):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(note))):
                notes[name] = note
    return notes


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
