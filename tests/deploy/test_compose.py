"""The Compose file: read by a parser of its specification, and true to the programs."""

import importlib
import importlib.util
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from ingress.settings import IngressSettings
from shared.settings.durations import parse_duration
from tests.deploy.kubernetes_objects import DEPLOY
from tests.deploy.pinned import pin
from tests.tools import missing, tool
from worker.settings import WorkerSettings

_VARIABLE: Final = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")
OWN: Final = ("ingress", "worker", "console")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which make-secrets.sh and pin-images.sh have run."""
    folder = tmp_path_factory.mktemp("compose")
    subprocess.run(
        [tool("sh"), DEPLOY / "make-secrets.sh", folder], check=True, capture_output=True
    )
    pin(DEPLOY / "pin-images.sh", folder)
    return folder


@pytest.fixture(scope="module")
def compose(secrets: Path) -> Any:
    """The file with its variables filled in as Compose does."""
    lines = (secrets / ".env").read_text().splitlines()
    environ = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    text = (DEPLOY / "compose.yaml").read_text()
    used = {found[1] for found in _VARIABLE.finditer(text)}
    assert used == environ.keys()
    filled = _VARIABLE.sub(lambda found: environ[found[1]], text)
    return yaml.safe_load(filled)


def test_it_is_valid_by_the_compose_specification(compose: Any) -> None:
    if importlib.util.find_spec("compose_spec") is None:
        missing("compose-spec isn't installed; it comes with requirements-deploy.lock")
    read = importlib.import_module("compose_spec").PyCompose.from_json
    plain = {name: value for name, value in compose.items() if not name.startswith("x-")}
    assert set(read(json.dumps(plain)).service_names()) == set(compose["services"])


def test_there_are_two_ingresses_behind_a_proxy_and_several_workers(compose: Any) -> None:
    services = compose["services"]
    assert services["ingress"]["deploy"]["replicas"] == 2
    assert services["worker"]["deploy"]["replicas"] >= 2
    assert "ports" not in services["ingress"]
    assert services["proxy"]["ports"][0].endswith(":8080")


def test_only_deliveries_can_be_reached_from_elsewhere(compose: Any) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_who_asks_an_admin_port_reaches_it_and_it_is_published_nowhere(compose: Any) -> None:
    """The proxy and Prometheus ask over the network that Compose makes."""
    services = compose["services"]
    ingress = IngressSettings.from_environ(_environ(services["ingress"]))
    worker = WorkerSettings.from_mapping(_environ(services["worker"]))
    everywhere = ("0.0.0.0", "::")  # noqa: S104  # inside that network
    assert ingress.admin.hosts == worker.admin.hosts == everywhere
    assert not any("ports" in services[name] for name in ("ingress", "worker"))


def test_every_service_is_confined(compose: Any) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["ulimits"] == {"core": 0}, name


def test_every_image_of_anothers_is_used_by_its_digest(compose: Any) -> None:
    for name, service in compose["services"].items():
        image = service["build"]["args"]["PYTHON_IMAGE"] if name in OWN else service["image"]
        assert re.fullmatch(r"[a-z/]+@sha256:[0-9a-f]{64}", image), name


def test_no_program_knows_another_ones_password(compose: Any, secrets: Path) -> None:
    users = {"ingress": "ingress", "worker": "worker", "console": "operator"}
    for name, user in users.items():
        password = (secrets / "secrets" / user).read_text()
        url = compose["services"][name]["environment"]["REDIS_URL"]
        assert url == f"redis://{user}:{password}@redis:6379/0"
        said = json.dumps(compose["services"][name])
        others = set(users.values()) - {user}
        assert not any((secrets / "secrets" / each).read_text() in said for each in others)


def test_the_ingress_alone_has_what_sellfern_signs_with(compose: Any) -> None:
    known = {name: compose["services"][name].get("secrets", []) for name in OWN}
    assert known == {name: ["acme"] if name == "ingress" else [] for name in OWN}


def test_secrets_are_made_once_and_are_nobody_elses_to_read(secrets: Path) -> None:
    before = (secrets / ".env").read_text()
    subprocess.run(
        [tool("sh"), DEPLOY / "make-secrets.sh", secrets], check=True, capture_output=True
    )
    assert (secrets / ".env").read_text() == before
    assert (secrets / ".env").stat().st_mode & 0o077 == 0
    assert (secrets / "secrets").stat().st_mode & 0o077 == 0


def test_drain_times_and_health_checks_are_those_of_the_programs(compose: Any) -> None:
    services = compose["services"]
    settings = {name: _environ(services[name]) for name in OWN}
    ingress = IngressSettings.from_environ(settings["ingress"])
    worker = WorkerSettings.from_mapping(settings["worker"])
    grace = {name: parse_duration(services[name]["stop_grace_period"]) for name in OWN[:2]}
    assert ingress.drain_delay + ingress.drain_seconds < grace["ingress"]
    assert worker.drain < grace["worker"]
    checks = {name: services[name]["healthcheck"]["test"] for name in OWN}
    assert checks["ingress"][3] == str(ingress.admin.port)
    assert checks["worker"][3] == str(worker.admin.port)
    assert {tuple(check[:3]) for check in checks.values()} == {("CMD", "python", "/app/healthy.py")}
    proxy = (DEPLOY / "proxy" / "haproxy.cfg").read_text()
    assert f"check port {ingress.admin.port} " in proxy
    assert f"ingress:{ingress.address.port} " in proxy
    interval, falls = re.search(r"inter (\d+)s fall (\d+)", proxy).groups()  # type: ignore[union-attr]  # it is there
    assert int(interval) * int(falls) < ingress.drain_delay


def _environ(service: Any) -> dict[str, str]:
    return {name: str(value) for name, value in service["environment"].items()}


def test_every_file_that_is_mounted_is_there(compose: Any) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in compose["volumes"]


def test_prometheus_finds_every_instance_of_a_service(compose: Any) -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    for job in jobs:
        (where,) = job["dns_sd_configs"]
        (name,) = where["names"]
        assert name in compose["services"]
        assert str(where["port"]) in compose["services"][name]["healthcheck"]["test"]


def test_haproxy_reads_the_configuration_of_the_proxy() -> None:
    ended = subprocess.run(
        [tool("haproxy"), "-c", "-f", DEPLOY / "proxy" / "haproxy.cfg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
