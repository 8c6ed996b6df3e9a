"""Every topic of `benchmarks` at its smallest size: it runs, and its tables can be kept and shown."""

import json
from pathlib import Path

import pytest

from benchmarks import libraries
from benchmarks.__main__ import TOPICS, titles
from benchmarks.measure import TINY, Figure, Missing, geometric_mean, ratios
from benchmarks.report import Results, device
from benchmarks.table import OURS, Row, Table, from_data, markdown, to_data


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_gives_tables_with_figures_of_ours(
    topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        libraries, "PEERS", ()
    )  # the others' speed in compiling tiny models is not ours to test
    tables = TOPICS[topic].run(TINY)
    for table in tables:
        for row in table.rows:
            assert isinstance(row.cells[OURS], Figure) or topic == "memory"
            assert row.cells.keys() >= {table.baseline}
        assert from_data(json.loads(json.dumps(to_data(table)))).columns == table.columns
    results = Results(tmp_path)
    results.put(topic, tables, "a machine")
    results.write(titles())
    page = (tmp_path / "RESULTS.md").read_text()
    assert all(f"### {table.title}\n" in page for table in tables)
    assert all(f"\n| {row.name} |" in page for table in tables for row in table.rows)


def table(value: float, title: str = "t") -> Table:
    cells = {"jax": Figure(1.0, 1.0, 1.0, 2e-3), OURS: Figure(value, 0.4, 0.6, 2e-3), "x": Missing("cannot")}
    return Table(title, (Row("m", cells, must=0.5),))


def test_a_table_shows_bounds_and_reasons_and_other_devices() -> None:
    shown = list(markdown(table(0.55), {"H": table(0.25)}))
    assert shown[1] == "| | jax | stategrad | x | must | jax alone | stategrad on H |"
    cells = ["m", "1.00", "0.55 (0.40 to 0.60)", "– (1)", "≤ 0.50, missed", "2 ms", "0.25 (0.40 to 0.60)"]
    assert shown[3] == f"| {' | '.join(cells)} |"
    assert "1. cannot" in shown


def test_a_topic_run_alone_replaces_only_its_own_section(tmp_path: Path) -> None:
    names = {"one": "First.", "two": "Second."}
    first = Results(tmp_path)
    first.put("one", [table(0.1, "a")], "old machine")
    first.put("two", [table(0.2, "b")], "old machine")
    first.write(names)
    second = Results(tmp_path)
    second.put("two", [table(0.3, "b")], "new machine")
    second.write(names)
    page = (tmp_path / "RESULTS.md").read_text()
    assert page.index("## one") < page.index("old machine") < page.index("## two") < page.index("new machine")
    assert "0.10" in page
    assert "0.20" not in page
    assert set(json.loads((tmp_path / "results.json").read_text())["one"]) == {device()}


def test_ratios_are_taken_round_by_round() -> None:
    found = ratios({"jax": [1.0, 10.0, 2.0], OURS: [0.5, 20.0, 2.0]}, "jax")[OURS]
    assert found == Figure(1.0, 0.75, 1.5, 2.0)


def test_geometric_means_need_every_row() -> None:
    rows = [{OURS: Figure.of(0.5), "x": Figure.of(1.0)}, {OURS: Figure.of(2.0), "x": Missing("no")}]
    mean = geometric_mean(rows)
    assert isinstance(mean[OURS], Figure)
    assert mean[OURS].value == pytest.approx(1.0)
    assert isinstance(mean["x"], Missing)
