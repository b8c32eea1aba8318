"""Facts about the whole runs that are kept, and about what several say together."""

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from tests.bench import runs
from tests.bench.__main__ import main
from tests.bench.figures import Figure
from tests.bench.machine import Machine
from tests.bench.runs import COMBINED, Results, Run


def run(hour: int, middle: float, name: str = "drain/over arq") -> Run:
    return Run(
        machine=Machine(
            f"2026-01-31 {hour:02}:05 UTC", "Linux", "a processor", 2, 24, {"Redis": "8.2"}
        ),
        commit="abc1234",
        minutes=30.5,
        figures={name: Figure(middle, middle - 5, middle + 5)},
        raw={"drain": {"ours, 1": [[7000.0, 0.1]]}},
        missing={"drain": {"BullMQ": "node is not installed"}},
    )


def test_a_run_is_kept_whole_and_read_as_it_was(tmp_path: Path) -> None:
    run(9, 14.0).keep(tmp_path)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["2026-01-31T0905.json"]
    assert runs.kept(tmp_path) == [run(9, 14.0)]


def test_the_newest_runs_count_with_the_oldest_of_them_first(tmp_path: Path) -> None:
    for hour in (12, 8, 10, 9):
        run(hour, 14.0).keep(tmp_path)
    assert [each.machine.date[11:13] for each in runs.kept(tmp_path)] == ["09", "10", "12"]
    assert len(runs.kept(tmp_path)) == COMBINED


def test_a_figure_is_the_median_of_the_runs_with_the_lowest_and_the_highest_of_them() -> None:
    results = Results.of([run(9, 14.0), run(10, 12.0), run(12, 13.0)])
    assert results.figures == {"drain/over arq": Figure(13.0, 12.0, 14.0)}
    assert results.runs[0] == "2026-01-31 09:05 UTC (abc1234)"


def test_a_figure_that_one_run_lacks_is_of_the_others() -> None:
    results = Results.of([run(9, 14.0), run(10, 2.0, "drain/over BullMQ")])
    assert results.figures["drain/over arq"] == Figure(14.0, 14.0, 14.0)
    assert results.figures["drain/over BullMQ"] == Figure(2.0, 2.0, 2.0)


def test_results_are_made_anew_of_the_runs_that_are_kept(tmp_path: Path) -> None:
    for hour, middle in ((9, 14.0), (10, 18.0), (12, 17.0)):
        run(hour, middle).keep(tmp_path)
    done = CliRunner().invoke(main, ["--combine", "--results", str(tmp_path)])
    assert done.exit_code == 0, done.output
    numbers = msgspec.json.decode((tmp_path / "results.json").read_bytes())
    assert numbers["figures"]["drain/over arq"] == {"middle": 17.0, "low": 14.0, "high": 18.0}
    summary = (tmp_path / "summary.md").read_text()
    assert "Medians of 3 whole runs" in summary
    assert "2026-01-31 10:05 UTC (abc1234)" in summary
    assert "17.0 (14.0 to 18.0)x" in summary


def test_without_a_kept_run_there_are_no_results(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--combine", "--results", str(tmp_path)])
    assert done.exit_code == 1
    assert "expected kept runs, got none" in done.output


@pytest.mark.parametrize("path", ["", "/nowhere"])
def test_where_git_is_not_installed_nobody_knows_the_commit(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", path)
    assert not runs.commit()
