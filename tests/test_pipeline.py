"""Pipelines: their text, the hook between passes, and what a failing pass leaves behind."""

import io
import re
from dataclasses import dataclass
from typing import Literal

import pytest

from stategrad.ir import IRVerifyError, Module, Operation, Region, Value, parse, to_text
from stategrad.passes import (
    PASSES,
    CellName,
    DumpTo,
    FunctionName,
    Pass,
    PassError,
    PassTextError,
    Pipeline,
    Print,
    Timing,
    Verify,
    parse_pipeline,
    register_pass,
    together,
)

PROGRAM = """\
func @f(%x: f32[3]) -> f32[3] {
  %unused: f32[3] = sin %x loc("user.py":3:4)
  %y: f32[3] = cos %x loc("user.py":4:4)
  return %y
}
"""


@pytest.fixture
def own_passes(monkeypatch):
    """Passes with every kind of option, registered for one test."""
    registry = dict(PASSES)
    monkeypatch.setattr("stategrad.passes.pipeline.PASSES", registry)
    register_pass(Options)
    register_pass(Fails)
    register_pass(Breaks)


@dataclass(frozen=True)
class Options(Pass):
    """Takes every kind of option.

    This is not help.
    """

    name = "every-option"
    of: FunctionName
    wrt: tuple[CellName, ...] = ()
    count: int | None = None
    scale: float = 1.0
    text: str = ""
    flag: bool = False
    sizes: tuple[int, ...] = ()
    mode: Literal["fast", "small"] = "fast"

    def run(self, module):
        return module


@dataclass(frozen=True)
class Fails(Pass):
    """Fails at the last operation."""

    name = "fails"

    def run(self, module):
        for op in next(iter(module.functions.values())).body.operations:
            last = op
        return self._look(last)

    def _look(self, op: Operation):
        raise ZeroDivisionError(f"{op.name} is too hard")


@dataclass(frozen=True)
class Breaks(Pass):
    """Makes a program that does not verify."""

    name = "breaks"

    def run(self, module):
        (function,) = module.functions.values()
        body = function.body
        stranger = Value(body.results[0].type, "stranger")
        made = type(function)(function.name, Region(body.params, body.operations, (stranger,)))
        return Module(module.cells, {function.name: made})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dce",
        "fold, cse, dce",
        "every-option{of = @loss}",
        "every-option{of = @loss.lin, wrt = [$w, $layers.0.weight], count = 3, flag = true}",
        'every-option{of = @f, scale = 0.5, text = "a \\"b\\" \\\\ c", sizes = [1, 2]}, dce{keep = [@f]}',
        'every-option{of = @"odd name", mode = "small"}',
    ],
)
def test_text_round_trip(own_passes, text):
    """What is parsed prints as it was written, and parses back to equal passes."""
    found = parse_pipeline(text)
    assert str(found) == text
    assert parse_pipeline(str(found)) == found


def test_spaces_and_defaults_are_free(own_passes):
    assert (
        str(parse_pipeline(" dce{ } ,\n every-option{of=@f,scale=1.0,wrt=[]}"))
        == "dce, every-option{of = @f}"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dse", "there is no pass 'dse'; there are: "),
        ("every-option", "every-option needs the option of: every-option{of = …}"),
        ("every-option{of = $w}", "option of of every-option is a function as in @f, not $w"),
        ("every-option{of = w}", "option of of every-option is a function as in @f, not 'w'"),
        (
            "every-option{of = @f, wrt = $w}",
            "option wrt of every-option is a list with each item a cell as in $s",
        ),
        ("every-option{of = @f, flag = 1}", "option flag of every-option is true or false, not 1"),
        (
            "every-option{of = @f, count = true}",
            "option count of every-option is an integer or none, not True",
        ),
        ('every-option{of = @f, mode = "big"}', "one of 'fast', 'small', not 'big'"),
        ("dce{of = @f}", "dce has no option 'of'; its options are: keep"),
        ("cse{of = @f}", "cse has no option 'of'; its options are: none"),
        ("dce{keep = [@f], keep = [@g]}", "the option keep is given 2 times"),
    ],
)
def test_errors_of_the_text(own_passes, text, message):
    with pytest.raises(PassTextError, match=re.escape(message)):
        parse_pipeline(text)


@pytest.mark.parametrize(
    ("text", "column"), [("dce cse", 5), ("dce,, cse", 5), ("dce{keep = [@f}", 15), ("dce{", 5)]
)
def test_syntax_errors_point_at_the_place(text, column):
    with pytest.raises(PassTextError) as caught:
        parse_pipeline(text)
    assert f"column {column}:" in str(caught.value)
    assert str(caught.value).endswith(f"    {text}\n    {' ' * (column - 1)}^")


def test_help_is_the_first_line_of_the_docstring():
    assert Options.help() == "Takes every kind of option."
    assert all(cls.help().endswith(".") and "\n" not in cls.help() for cls in PASSES.values())


def test_passes_need_a_name_and_help_of_their_own(own_passes):
    @dataclass(frozen=True)
    class Nameless(Pass):
        """Has no name."""

        def run(self, module):
            return module

    @dataclass(frozen=True)
    class Twin(Pass):
        """Has the name of another pass."""

        name = "dce"

        def run(self, module):
            return module

    with pytest.raises(PassTextError, match="Nameless needs a name"):
        register_pass(Nameless)
    with pytest.raises(PassTextError, match="two passes called dce"):
        register_pass(Twin)


def test_hooks_see_the_input_and_every_result(own_passes):
    seen = []
    module = parse(PROGRAM)
    result = parse_pipeline("cse, dce").run(module, seen.append)
    assert [(s.index, s.title, s.changed) for s in seen] == [
        (0, "input", True),
        (1, "cse", False),
        (2, "dce", True),
    ]
    assert seen[0].module is seen[1].module is module
    assert seen[2].module is result
    assert all(s.seconds > 0 for s in seen[1:])


def test_hooks_verify_print_time_and_dump(tmp_path):
    printed, timing = io.StringIO(), Timing()
    hook = together(Verify(), Print(printed), timing, DumpTo(tmp_path / "dump"))
    result = parse_pipeline("dce, cse").run(parse(PROGRAM), hook)
    names = [p.name for p in sorted((tmp_path / "dump").iterdir())]
    assert names == ["00-input.sg", "01-dce.sg", "02-cse.sg"]
    assert (tmp_path / "dump" / "01-dce.sg").read_text() == f"// 1: dce\n{to_text(result)}"
    assert "// ---- 1: dce\n" in printed.getvalue()
    assert "// ---- 2: cse (nothing changed)\n" in printed.getvalue()
    assert set(timing.seconds) == {"dce", "cse"}
    assert " ms  cse" in str(timing)


def test_dumped_files_sort_in_the_order_of_the_passes(tmp_path):
    pipeline = parse_pipeline(", ".join(["dce", "cse"] * 6))
    pipeline.run(parse(PROGRAM), DumpTo(tmp_path))
    names = [p.name for p in sorted(tmp_path.iterdir())]
    assert names[1:3] + names[-1:] == ["01-dce.sg", "02-cse.sg", "12-cse.sg"]


def test_a_failing_pass_says_which_where_and_leaves_a_reproducer(own_passes, tmp_path):
    pipeline = parse_pipeline("dce, fails, cse")
    with pytest.raises(PassError) as caught:
        pipeline.run(parse(PROGRAM), folder=tmp_path)
    error = caught.value
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert (error.position, error.spec, error.done) == (2, "fails", ("dce",))
    assert str(error).splitlines() == [
        "pass 2, `fails`, failed: ZeroDivisionError: cos is too hard",
        '  at "user.py":4:4',
        "  passes before it: dce",
        f"  the program it was given: {error.reproducer}",
    ]
    first, _, program = error.reproducer.read_text().partition("\n")
    assert first == "// RUN: fails"
    assert program == to_text(parse_pipeline("dce").run(parse(PROGRAM)))


def test_a_result_that_does_not_verify_is_the_fault_of_its_pass(own_passes, tmp_path):
    with pytest.raises(PassError, match="pass 1, `breaks`, failed: IRVerifyError") as caught:
        parse_pipeline("breaks, dce").run(parse(PROGRAM), Verify(), tmp_path)
    assert isinstance(caught.value.__cause__, IRVerifyError)


def test_a_pass_that_returns_nothing(tmp_path):
    @dataclass(frozen=True)
    class Forgets(Pass):
        """Forgets to return what it made."""

        name = "forgets"

        def run(self, module):
            module.functions.values()

    with pytest.raises(PassError, match=r"`forgets`, failed: TypeError: Forgets.run returned None"):
        Pipeline.of(Forgets()).run(parse(PROGRAM), folder=tmp_path)


def test_pipelines_add_up():
    assert str(parse_pipeline("fold") + parse_pipeline("cse, dce")) == "fold, cse, dce"
    assert Pipeline.of().run(module := parse(PROGRAM)) is module
