"""Facts about the files that a run leaves."""

from pathlib import Path

import msgspec

from tests.bench.charts import Bars
from tests.bench.figures import Figure
from tests.bench.machine import Machine
from tests.bench.report import Section, table, write

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


def test_one_sections_numbers_stay_when_another_is_measured_alone(tmp_path: Path) -> None:
    write(section("drain"), MACHINE, tmp_path)
    write(section("ingress"), MACHINE, tmp_path)
    numbers = msgspec.json.decode((tmp_path / "results.json").read_bytes())
    assert set(numbers) == {"drain", "ingress"}
    assert numbers["drain"]["raw"] == {"ours": [7000.0]}
    assert numbers["drain"]["figures"]["over arq"] == {"middle": 8.0, "low": 7.0, "high": 9.0}
    assert numbers["drain"]["machine"]["cores"] == 2


def test_the_machine_is_described_without_its_name_or_paths() -> None:
    here = Machine.here()
    assert here.cores > 0
    assert here.versions["Redis"][0].isdigit()
    assert "/" not in here.described()
