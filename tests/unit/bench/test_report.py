"""Facts about the files that a run leaves."""

from pathlib import Path

from tests.bench.charts import Bars
from tests.bench.figures import Figure
from tests.bench.machine import Machine
from tests.bench.report import Section, table, write, write_summary
from tests.bench.runs import Results

MACHINE = Machine("2026-01-31 12:00 UTC", "Linux", "a processor", 2, 24, {"Redis": "8.2"})


def section(name: str = "drain") -> Section:
    return Section(
        name=name,
        title="Drain rate",
        method="Measured so.",
        columns=("who", "a second"),
        rows=[["ours", "7,000"]],
        chart=Bars("Jobs a second", ["ours"], {"": [7000.0]}),
        figures={"over arq": Figure(8.0, 7.0, 9.0)},
        missing={"BullMQ": "node is not installed"},
        raw={"ours": [7000.0]},
    )


def test_a_table_is_one_to_the_eye_too_with_numbers_at_the_right() -> None:
    assert table(
        ("who", "a second", "settings"), [["ours", "7,000", "all"], ["x|y", "9", "-"]]
    ) == (
        "| who  | a second | settings |\n"
        "|------|---------:|----------|\n"
        "| ours |    7,000 | all      |\n"
        "| x\\|y |        9 | -        |\n"
    )


def test_a_section_says_how_it_was_measured_on_what_and_what_was_not_run(tmp_path: Path) -> None:
    write(section(), MACHINE, tmp_path)
    text = (tmp_path / "drain.md").read_text()
    assert "Measured so." in text
    assert "(drain.svg)" in text
    assert "Not run: BullMQ: node is not installed" in text
    assert "Measured 2026-01-31 12:00 UTC on 2 cores of a processor" in text
    assert "Redis 8.2" in text
    assert (tmp_path / "drain.svg").read_text().startswith("<svg")


def test_the_summary_has_what_must_hold_and_every_figure(tmp_path: Path) -> None:
    results = Results(["2026-01-31 12:00 UTC"], {"drain/over arq": Figure(8.0, 8.0, 8.0)})
    write_summary(results, "| must hold |\n", MACHINE, tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert "One whole run, with the lowest" not in text
    assert "One whole run: 2026-01-31 12:00 UTC." in text
    assert "| must hold |" in text
    assert "| drain/over arq |     8.00 |" in text
    assert "a processor" in text


def test_the_machine_is_described_without_its_name_or_paths() -> None:
    here = Machine.here()
    assert here.cores > 0
    assert here.versions["Redis"][0].isdigit()
    assert "/" not in here.described()
