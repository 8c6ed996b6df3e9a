"""What `import stategrad` loads and does: beyond JAX only its own modules, and nothing that can wait."""

import subprocess
import sys

HEAVY = (
    "lark",
    "networkx",
    "optax",
    "flax",
    "equinox",
    "matplotlib",
    "rich",
    "jax.extend",
    "jax.experimental.pallas",
)
"""Needed by some programs, or known to load much; none comes with `import jax`."""


def loaded(first: str, then: str) -> set[str]:
    """The modules that a new interpreter loads by `then`, after `first`."""
    script = f"import sys\n{first}\nbefore = set(sys.modules)\n{then}\nprint(*set(sys.modules) - before)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def test_importing_loads_only_modules_of_ours_and_of_the_standard_library() -> None:
    strangers = {m for m in loaded("import jax", "import stategrad") if m.partition(".")[0] != "stategrad"}
    assert {m.partition(".")[0] for m in strangers} <= sys.stdlib_module_names


def test_importing_leaves_what_can_wait() -> None:
    assert not {m for m in loaded("", "import stategrad") if m.startswith(HEAVY)}


def test_the_readers_of_texts_come_with_the_first_text() -> None:
    program = "stategrad.ir.parse('func @f() -> () {\\n  return\\n}')"
    assert "lark" in loaded("import stategrad", program)
    assert "stategrad.ir.grammar" in loaded("import stategrad", program)
    assert "stategrad.passes.read_specs" in loaded(
        "import stategrad", "stategrad.passes.parse_pipeline('dce')"
    )


def test_importing_leaves_the_garbage_collector_as_it_was() -> None:
    script = "import gc\ngc.{}()\nimport stategrad\nprint(gc.isenabled(), gc.get_freeze_count() > 0)"
    for call, after in (("enable", "True False"), ("disable", "False False"), ("freeze", "True True")):
        command = [sys.executable, "-c", script.format(call)]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == after
