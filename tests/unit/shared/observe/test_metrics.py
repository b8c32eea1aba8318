"""The metrics that a scrape shows."""

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Never

import pytest
from prometheus_client import REGISTRY as LIBRARYS_OWN
from prometheus_client.parser import text_string_to_metric_families

from shared.observe import metrics
from tests.deploy import metric_names


def families() -> list[str]:
    body, _ = metrics.render()
    return [family.name for family in text_string_to_metric_families(body.decode())]


def test_every_name_starts_with_sellfern() -> None:
    names = families()
    assert "sellfern_ingress_requests" in names
    assert [name for name in names if not name.startswith("sellfern_")] == []
    assert len(names) == len(set(names))


def test_every_metric_says_what_it_counts() -> None:
    for family in metrics.REGISTRY.collect():
        assert family.documentation, family.name


def test_the_readme_tells_of_every_metric_and_of_no_other() -> None:
    readme = (Path(__file__).parents[4] / "deploy" / "README.md").read_text()
    told = set(re.findall(r"`(sellfern_[a-z_]+)", readme))
    ours = {f.name + ("_total" if f.type == "counter" else "") for f in metric_names.families()}
    assert told == {name for name in ours if not name.startswith("sellfern_process_")}


def test_no_counter_tells_when_it_was_made() -> None:
    metrics.EVENTS.labels("handled")
    body, _ = metrics.render()
    assert b"_created" not in body
    assert b'sellfern_events_total{outcome="handled"}' in body


def test_the_librarys_own_registry_has_none_of_ours() -> None:
    assert not [m.name for m in LIBRARYS_OWN.collect() if m.name.startswith("sellfern_")]


def test_a_scrape_is_prometheus_text() -> None:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    assert body.endswith(b"\n")


def test_what_runs_stands_in_the_build_info() -> None:
    metrics.tell_program("worker")
    labels = {
        "program": "worker",
        "version": version("sellfern-webhooks"),
        "python": platform.python_version(),
    }
    assert metrics.REGISTRY.get_sample_value("sellfern_build_info", labels) == 1


def test_a_source_tree_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_name: str) -> Never:
        raise PackageNotFoundError

    monkeypatch.setattr(metrics, "version", none)
    assert metrics.installed_version() == "unknown"
