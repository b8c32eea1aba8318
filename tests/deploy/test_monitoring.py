"""Alerts and dashboard: read by Prometheus's own tool, and true to the programs' metrics."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from ingress.http import answers
from tests.deploy.metric_names import shown, unknown_labels, unknown_metrics
from tests.tools import tool

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
RULES: Final[list[Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
BOARD: Final[Any] = json.loads((DEPLOY / "grafana/dashboards/sellfern.json").read_text())
EXPRESSIONS: Final = {
    f"{panel['title']}/{target['refId']}": target["expr"]
    for panel in BOARD["panels"]
    for target in panel.get("targets", [])
} | {rule["alert"]: rule["expr"] for rule in RULES}


def promtool(*words: str | Path, folder: Path = PROMETHEUS) -> str:
    """What promtool says of something that has to be right."""
    ended = subprocess.run(
        [tool("promtool"), *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_prometheus_reads_its_configuration_and_the_alerts() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml")


def test_the_alerts_come_when_they_should_and_not_before() -> None:
    assert "SUCCESS" in promtool("test", "rules", "alerts.test.yml")


def test_prometheus_reads_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(EXPRESSIONS.values())
    ]
    path = tmp_path / "panels.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


@pytest.mark.parametrize("place", EXPRESSIONS, ids=str)
def test_a_metric_in_an_expression_is_one_that_a_program_shows(place: str) -> None:
    assert unknown_metrics(EXPRESSIONS[place]) == set()
    assert unknown_labels(EXPRESSIONS[place]) == set()


def test_a_metric_or_label_that_nobody_shows_would_be_noticed() -> None:
    assert "sellfern_events_total" in shown()
    assert unknown_metrics("rate(sellfern_events[5m])") == {"sellfern_events"}
    assert unknown_labels('sum by (reason) (sellfern_events_total{kind="x"})') == {"reason", "kind"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_a_heading_in_the_runbook(rule: Any) -> None:
    runbook = (DEPLOY / "runbook.md").read_text()
    assert rule["annotations"]["runbook"] == f"deploy/runbook.md#{rule['alert'].lower()}"
    section = runbook.split(f"\n## {rule['alert']}\n")[1].split("\n## ")[0]
    for part in ("**Means**", "**Look at**", "**Type**"):
        assert part in section or "| do |" in section


def test_no_heading_of_the_runbook_is_left_over() -> None:
    headings = [
        line.removeprefix("## ")
        for line in (DEPLOY / "runbook.md").read_text().splitlines()
        if line.startswith("## ")
    ]
    assert headings == [*dict.fromkeys(headings)]
    assert set(headings) == {rule["alert"] for rule in RULES}


def test_the_alert_on_refusals_leaves_out_what_a_stranger_can_cause() -> None:
    (rule,) = (rule for rule in RULES if rule["alert"] == "SellfernIngressRefuses")
    left_out = rule["expr"].split('!~"')[1].split('"')[0].split("|")
    blamed_on_the_sender = {
        refusal.code
        for refusal in vars(answers).values()
        if isinstance(refusal, answers.Refusal) and refusal.status < 500
    }
    assert blamed_on_the_sender <= set(left_out)


def test_grafana_finds_its_datasource_and_its_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())
    (uid,) = {panel["datasource"]["uid"] for panel in BOARD["panels"] if "datasource" in panel}
    assert [source["uid"] for source in sources["datasources"]] == [uid]
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
