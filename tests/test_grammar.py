"""The grammar and the limits of the parser: no conflicts, no text that breaks it, linear time."""

import logging
import sys

import lark
import pytest

from stategrad.ir import (
    Builder,
    Function,
    IRSyntaxError,
    Module,
    Operation,
    Type,
    Value,
    parse,
    to_text,
    verify,
)
from stategrad.ir.grammar import grammar_text
from stategrad.ir.opdef import ROWS


# ------------------------------------------------------------------ the grammar
def conflicts(grammar: str) -> list[str]:
    """What Lark resolved silently; it says so in its log alone."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    lark.logger.addHandler(handler)
    level = lark.logger.level
    lark.logger.setLevel(logging.DEBUG)
    try:
        lark.Lark(grammar, parser="lalr", lexer="contextual", maybe_placeholders=False)
    finally:
        lark.logger.removeHandler(handler)
        lark.logger.setLevel(level)
    return [message for message in said if "conflict" in message.lower()]


def test_the_grammar_has_no_conflicts() -> None:
    assert not conflicts(grammar_text())


def test_without_the_newline_as_a_token_conflicts_would_be_found() -> None:
    lines = [line for line in grammar_text().splitlines() if not line.startswith("_NL")]
    assert conflicts("\n".join(lines).replace("_NL?", "").replace("_NL", "") + "\n%ignore /\\s+/")


NESTED = "scan {length = 1, reverse = false} () {\n"
TOO_MUCH = {
    "lists": "func @f() -> () {a = " + "[" * 500 + "]" * 500 + "} {\n  return\n}",
    "open lists": "func @f() -> () {a = " + "[" * 100_000,
    "regions": "func @f() -> () {\n" + NESTED * 500 + "yield\n}\n" * 500 + "return\n}",
    "locations": "func @f() -> () loc(" + "a(" * 5000 + "unknown" + ")" * 5000 + ") {\n  return\n}",
    "digits": f"func @f() -> () {{a = {'9' * 5000}}} {{\n  return\n}}",
    "line": f'func @f() -> () loc("a":{"9" * 5000}:1) {{\n  return\n}}',
    "axes": f"func @f(%x: f32[{','.join('1' * 65)}]) -> () {{\n  return\n}}",
    "elements": "func @f(%x: f32[4000000000,4000000000]) -> () {\n  return\n}",
    "a dimension": f"func @f(%x: f32[{'9' * 5000}]) -> () {{\n  return\n}}",
    "a blob": 'func @f() -> () {a = f32[999999999999] base64"AAAA"} {\n  return\n}',
    "a list for": "func @f() -> () {a = f32[999999999999] [1.0]} {\n  return\n}",
    "a float": "func @f() -> () {a = 1e999} {\n  return\n}",
    "bits": "func @f() -> () {a = f32[] 0x100000000} {\n  return\n}",
    "a character": 'func @f() -> () {a = "\\u{110000}"} {\n  return\n}',
}


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
def test_too_much_of_anything_is_a_syntax_error(text: str) -> None:
    with pytest.raises(IRSyntaxError) as caught:
        parse(text)
    assert caught.value.line >= 1 and len(str(caught.value)) < 2000


def test_huge_types_take_no_memory() -> None:
    x = Type.parse("f32[100000000000]")
    b = Builder()
    param = b.param(x)
    text = to_text(Module.of([b.function("f", (param,), (b.add(param, b.zeros(x)),))]))
    assert to_text(parse(text)) == text


def test_an_error_names_the_file() -> None:
    with pytest.raises(IRSyntaxError, match=r"\n  --> here\.sg:1:6\n"):
        parse("func f", "here.sg")


def test_an_error_in_a_very_long_line_shows_a_part() -> None:
    blob = "A" * 100_000
    with pytest.raises(IRSyntaxError) as caught:
        parse(f'func @f() -> () {{a = u8[75000] base64"{blob}", b = f32[] none}} {{\n  return\n}}')
    assert len(str(caught.value)) < 1000
    shown, caret = str(caught.value).splitlines()[-2:]
    assert shown[caret.index("^") :].startswith("none")


# ------------------------------------------------------------------ time
def steps(work, *args: object) -> int:
    """How many Python and C functions a piece of work calls: a clock that other processes do not disturb."""
    count = 0

    def tick(frame, event, arg) -> None:
        nonlocal count
        count += event.endswith("call")

    sys.setprofile(tick)
    try:
        work(*args)
    finally:
        sys.setprofile(None)
    return count


def chain(n: int, calls: bool = False) -> Module:
    """`n` operations in a row on values that wish for one name, or `n` functions that call one another."""
    x = Value(Type.parse("f32[]"), "x")
    if calls:
        functions: list[Function] = []
        for i in range(n):
            b = Builder()
            y = b.call(x, callee=functions[-1]) if functions else b.sin(x)
            functions.append(b.function(f"f{i}", (x,), (y,)))
            x = Value(x.type, "x")
        return Module({}, {f.name: f for f in functions})
    operations, last = [], x
    for _ in range(n):
        result = Value(x.type, "x")
        operations.append(Operation(ROWS["sin"], (last,), (result,)))
        last = result
    b = Builder()
    b.operations += operations
    return Module.of([b.function("f", (x,), (last,))])


@pytest.mark.parametrize("calls", [False, True])
def test_printing_parsing_and_verifying_take_linear_time(calls: bool) -> None:
    for work, of in ((to_text, chain), (verify, chain), (parse, lambda n, c: to_text(chain(n, c)))):
        work(of(1, calls))  # tables and caches
        small, large = (steps(work, of(n, calls)) for n in (200, 1600))
        assert large < 8.5 * small
