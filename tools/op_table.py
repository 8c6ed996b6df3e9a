"""The table of operations in docs/ir.md, made from the rows: `python -m tools.op_table` rewrites it."""

import inspect
from collections.abc import Iterator
from pathlib import Path

from stategrad.ir import Jvp, Linear, OpDef, Row, Zero
from stategrad.ir.attributes import value_text
from stategrad.ir.opdef import ROWS

PAGE = Path(__file__).parents[1] / "docs" / "ir.md"
BEGIN, END = "<!-- operations: begin -->\n", "<!-- operations: end -->\n"
_HEADER = (
    "| operation | meaning | operands and attributes | derivative | StableHLO |\n|---|---|---|---|---|\n"
)


def table() -> str:
    """One line for each operation, by name."""
    return _HEADER + "".join(_line(ROWS[name]) for name in sorted(ROWS))


def with_table(page: str) -> str:
    """The page with a fresh table between its markers."""
    return between(page, BEGIN, table(), END)


def between(page: str, begin: str, content: str, end: str) -> str:
    """The page with other content between two markers."""
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.partition(end)[2]}"


def _line(op: OpDef) -> str:
    cells = (f"`{op.name}`", op.doc, _signature(op), _derivative(op), _lowering(op))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _signature(op: OpDef) -> str:
    symbols = [f"${s}" if s == "cell" else f"@{s}" for s in op.symbols]
    if not isinstance(op, Row):
        groups = [f"{s}(…)" for s in op.segments] or ["…"]
        return f"`{' '.join([', '.join(symbols), *groups] if symbols else groups)}`"
    operands = list(_operands(op))
    attributes = [_attribute(name, op) for name in sorted(op.attribute_names - {*op.symbols})]
    braces = f" {{{', '.join(attributes)}}}" if attributes else ""
    return f"`{', '.join([*symbols, *operands])}{braces}`".replace("` {", "`{")


def _attribute(name: str, op: Row) -> str:
    return f"{name} = {value_text(op.defaults[name], str)}" if name in op.defaults else name


def _operands(op: Row) -> Iterator[str]:
    """The type rule names the operands; where it takes any number, the samples tell how many there are."""
    counts = {len(s.types) for s in op.samples}
    for i, parameter in enumerate(inspect.signature(op.type_rule).parameters.values()):
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from ("%x", "%y", "%z")[i : max(counts)] if len(counts) == 1 else ("…",)
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            yield f"%{parameter.name}"


def _derivative(op: OpDef) -> str:
    if not isinstance(op, Row):
        return "of its regions or callee"
    rule = op.derivative
    if isinstance(rule, Jvp):
        return "jvp" if rule.transpose is None else "jvp, linear in some"
    if isinstance(rule, Linear):
        return f"linear in {rule.over}"
    if op.effect:
        return "of the cell"
    return f"zero: {rule.why}" if isinstance(rule, Zero) else f"none: {rule.why}"


def _lowering(op: OpDef) -> str:
    if not isinstance(op, Row):
        return "a rule"
    if op.effect:
        return "`thread-state` first"
    return f"`{op.lower}`" if isinstance(op.lower, str) else "a rule"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
