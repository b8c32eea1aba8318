"""Alerts and dashboard: read by Prometheus's own tool, and true to the programs' metrics."""

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from deploy.local import autoscaling
from ingress.http import answers
from tests.deploy import alert_scenarios
from tests.deploy.alert_scenarios import Scenario
from tests.deploy.metric_names import shown, unknown_labels, unknown_metrics
from tests.tools import tool

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
PROMETHEUS: Final = DEPLOY / "prometheus"
ALERTS: Final = PROMETHEUS / "alerts.yml"
GROUPS: Final[list[Any]] = yaml.safe_load(ALERTS.read_text())["groups"]
RECORDED: Final = {
    rule["record"]: rule["expr"] for group in GROUPS for rule in group["rules"] if "record" in rule
}
RULES: Final[list[Any]] = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
RULE_OF: Final = {rule["alert"]: rule for rule in RULES}
RUNBOOK: Final = "https://wiki.example/runbook.md"
BOARD: Final[Any] = json.loads((DEPLOY / "grafana/dashboards/sellfern.json").read_text())
EXPRESSIONS: Final = (
    {
        f"{panel['title']}/{target['refId']}": target["expr"]
        for panel in BOARD["panels"]
        for target in panel.get("targets", [])
    }
    | {rule["alert"]: rule["expr"] for rule in RULES}
    | RECORDED
)


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
    number = len(RULES) + len(RECORDED)
    assert f"{number} rules found" in promtool("check", "rules", "alerts.yml")


@pytest.mark.parametrize(
    ("scenarios", "every"),
    [(alert_scenarios.OUTAGES_TOLD, 5), (alert_scenarios.OTHERS_TOLD, 60)],
    ids=["outages", "others"],
)
def test_the_alerts_come_when_they_should_and_not_before(
    tmp_path: Path, scenarios: list[Scenario], every: int
) -> None:
    """Outages by the second, as their group says; of the others nobody waits for one."""
    path = tmp_path / "scenarios.yml"
    tests = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": f"{every}s",
        "tests": [as_promtool_has_it(each) for each in scenarios],
    }
    path.write_text(yaml.safe_dump(tests))
    assert "SUCCESS" in promtool("test", "rules", path)


def as_promtool_has_it(scenario: Scenario) -> dict[str, Any]:
    """A scenario in the words of `promtool test rules`."""
    return {
        "name": scenario.name,
        "interval": f"{alert_scenarios.SCRAPED}s",
        "external_labels": {"runbook": RUNBOOK},
        "input_series": [
            {"series": name, "values": values} for name, values in scenario.series.items()
        ],
        "alert_rule_test": [
            {
                "eval_time": f"{round(each.at * 1000)}ms",
                "alertname": f"Sellfern{each.alert}",
                "exp_alerts": [alert_of(f"Sellfern{each.alert}", *found) for found in each.found],
            }
            for each in scenario.expected
        ],
    }


def alert_of(name: str, summary: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """One that fires, as promtool has it: with all that its rule says of it."""
    rule = RULE_OF[name]
    return {
        "exp_labels": {**rule["labels"], **labels},
        "exp_annotations": {
            "summary": summary,
            "description": rule["annotations"]["description"],
            "runbook_url": f"{RUNBOOK}#{name.lower()}",
        },
    }


def test_every_alert_is_seen_to_fire_and_to_be_silent() -> None:
    seen = [
        (f"Sellfern{each.alert}", bool(each.found))
        for scenario in (*alert_scenarios.OUTAGES_TOLD, *alert_scenarios.OTHERS_TOLD)
        for each in scenario.expected
    ]
    assert {*seen} == {(name, does) for name in RULE_OF for does in (True, False)}


def test_the_autoscaler_is_told_nothing_where_nobody_knows(tmp_path: Path) -> None:
    """What is absent is not zero; and where a partition can't be read, others may have it all."""
    up = {"series": 'sellfern_partition_up{partition="1"}', "values": "1 1 0 0"}
    series = [
        {"series": f'{name}{{instance="{each}"}}', "values": f"_ {value} {value} stale"}
        for each, value in (("a", 40), ("b", 30))
        for name in ("sellfern_due_events", "sellfern_due_seconds")
    ]
    known: dict[str, Any] = {"labels": "{}", "value": 40}
    expected: dict[str, tuple[list[Any], ...]] = {
        autoscaling.DEPTH_QUERY: ([], [known], [known], []),
        autoscaling.OLDEST_QUERY: ([], [known], [], []),
    }
    asked = [
        {"expr": query, "eval_time": f"{minutes}m", "exp_samples": found}
        for query, answers in expected.items()
        for minutes, found in enumerate(answers)
    ]
    path = tmp_path / "queries.yml"
    test = {"interval": "1m", "input_series": [up, *series], "promql_expr_test": asked}
    path.write_text(yaml.safe_dump({"tests": [test]}))
    assert "SUCCESS" in promtool("test", "rules", path)


def test_outages_are_looked_for_more_often_than_any_prometheus_does_by_itself() -> None:
    """Whatever its `evaluation_interval` is; and those are all that have to be told within it."""
    (outages, *others) = GROUPS
    assert outages["interval"] == "5s"
    assert {each["interval"] for each in others} == {"15s"}
    alerts = {rule["alert"]: rule for rule in outages["rules"] if "alert" in rule}
    assert alerts.keys() == {f"Sellfern{each}" for each in alert_scenarios.OUTAGES}
    assert {(each["for"], each["labels"]["severity"]) for each in alerts.values()} == {
        ("30s", "critical")
    }


def test_no_alert_minds_what_the_jobs_are_called() -> None:
    """In Kubernetes it is for whoever scrapes the pods to say."""
    assert [name for name, rule in RULE_OF.items() if re.search(r"job\s*=", rule["expr"])] == []


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
    expression = EXPRESSIONS[place]
    for name, recorded in RECORDED.items():
        expression = expression.replace(name, f"({recorded})")
    assert unknown_metrics(expression) == set()
    assert unknown_labels(expression) == set()


def test_a_metric_or_label_that_nobody_shows_would_be_noticed() -> None:
    assert "sellfern_events_total" in shown()
    assert unknown_metrics("rate(sellfern_events[5m])") == {"sellfern_events"}
    assert unknown_labels('sum by (reason) (sellfern_events_total{kind="x"})') == {"reason", "kind"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_every_alert_has_a_heading_in_the_runbook(rule: Any) -> None:
    runbook = (DEPLOY / "runbook.md").read_text()
    link = '{{ or $externalLabels.runbook "deploy/runbook.md" }}'
    assert rule["annotations"]["runbook_url"] == f"{link}#{rule['alert'].lower()}"
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
    summary = RULE_OF["SellfernIngressRefusesSome"]["annotations"]["summary"]
    left_out = re.split(r"[|\\\\]", summary.split('!~\\"')[1].split('"')[0])
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
