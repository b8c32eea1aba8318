"""Facts about the names of settings, and about what nearly is one."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from ingress.management.settings import ManagementSettings
from ingress.settings import IngressSettings
from shared.program.setting_names import NAMES, near_misses
from worker.operate.console.settings import ConsoleSettings

README = (Path(__file__).parents[4] / "deploy" / "README.md").read_text(encoding="utf-8")


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: str = "") -> str:  # type: ignore[override]  # all we use
        self.names.add(name)
        return default


def meant(environ: Mapping[str, str]) -> list[str]:
    return [finding.message for finding in near_misses(environ)]


def test_the_names_are_those_of_the_readmes_table() -> None:
    table = README[README.index("\n## Settings") : README.index("\n## Metrics")]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)} == NAMES


def test_every_setting_that_is_read_has_its_name_there() -> None:
    asked = Asked()
    for read in (
        IngressSettings.from_environ,
        ManagementSettings.from_environ,
        ConsoleSettings.from_mapping,  # and those of the worker
    ):
        read(asked)
    assert asked.names <= NAMES
    assert NAMES - asked.names == {
        "SELLFERN_API_KEY",  # read once it is needed
        "SELLFERN_API_KEY_FILE",
        "SELLFERN_ORGANIZATION",  # an option's
    }


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
        ("WORKER_CONCURRENYC", "WORKER_CONCURRENCY"),
        ("ORGANISATION_CONCURRENCY", "ORGANIZATION_CONCURRENCY"),
        ("REDIS_URI", "REDIS_URL"),
        ("redis_url", "REDIS_URL"),
        ("LEASE_SECOND", "LEASE_SECONDS"),
        ("INGRESS_ADMINPORT", "INGRESS_ADMIN_PORT"),
        ("LOG_FROMAT", "LOG_FORMAT"),
        ("WORKER_DRAIN_SECONDS", "DRAIN_SECONDS"),
        ("SELLFERN_REDIS_URL", "REDIS_URL"),
        ("CONSOLE_TOKENS", "CONSOLE_TOKEN"),  # of another program, but ours
    ],
)
def test_a_name_that_nearly_is_a_settings_is_told_what_was_meant(name: str, setting: str) -> None:
    (message,) = meant({name: "hunter2", "PATH": "/bin"})
    assert message == f"{name} is no setting, so it does nothing; did you mean {setting}?"


def test_what_kubernetes_sets_for_a_service_is_let_alone() -> None:
    assert meant({"SELLFERN_INGRESS_PORT": "tcp://10.0.0.1:8080"}) == []


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NAMES),
        "HOST",
        "PORT",
        "REDIS_HOST",
        "REDIS_PORT",
        "REDIS_PASSWORD",
        "REDIS_SERVICE_HOST",
        "INGRESS_SERVICE_HOST",
        "INGRESS_SERVICE_PORT",
        "INGRESS_PORT_8080_TCP",
        "WORKER_ID",
        "WORKERS",
        "LOG_FILE",
        "LOGNAME",
        "CONSUL_HOST",
        "MAX_CONCURRENCY",
        "TRACE",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "ACME_SECRET",
        "SELLFERN_SECRET",
        "_",
        "",
    ],
)
def test_other_names_are_let_alone(name: str) -> None:
    assert meant({name: "1"}) == []
