"""The Kubernetes objects: built by kustomize, valid by their schemas, true to the programs."""

import re
import subprocess
from base64 import b64decode
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml

from ingress.settings import IngressSettings
from shared.settings.durations import parse_duration
from shared.settings.redis_url import RedisUrl
from tests.deploy.custom_kinds import validate
from tests.deploy.kubernetes_objects import COMPONENTS, DEPLOY, Objects, built
from tests.deploy.metric_names import unknown_metrics
from tests.tools import tool
from worker.settings import WorkerSettings

POD = "10.1.2.3"
ZONE = "topology.kubernetes.io/zone"
GROUPS = ("keda.sh", "monitoring.coreos.com")
"""Of the kinds that Kubernetes itself doesn't have."""

PROGRAMS = ("sellfern-ingress", "sellfern-worker", "sellfern-console")


@pytest.fixture(scope="module", params=["handlers", "cluster", COMPONENTS])
def objects(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """Build what stands on the example, that one alone in none of them: all holds for each."""
    return Objects(built(tmp_path_factory.mktemp("kubernetes"), request.param))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """Build the one with a team's own handlers."""
    return Objects(built(tmp_path_factory.mktemp("shop"), "handlers"))


@pytest.mark.parametrize("version", ["1.29.0", "1.33.0", "1.37.0"])
def test_every_object_is_valid_by_its_schema(objects: Objects, version: str) -> None:
    ended = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "-k", version, objects.path],
        capture_output=True,
        text=True,
        check=False,
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    unknown = [line for line in said.splitlines() if "INFO" not in line]
    assert all(any(group in line for group in GROUPS) for line in unknown), unknown


def test_every_object_of_somebody_elses_kind_is_valid_by_what_we_use_of_it(
    objects: Objects,
) -> None:
    found = [each for each in objects if each["apiVersion"].partition("/")[0] in GROUPS]
    assert found
    for each in found:
        validate(each)


def environ(objects: Objects, name: str) -> dict[str, str]:
    """The variables of a container, with something in the place of secrets and addresses."""
    container = objects.container(name)
    settings = next(each for each in objects.names("ConfigMap") if "sellfern-settings" in each)
    found = dict(objects.one("ConfigMap", settings)["data"])
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        known = POD if "fieldRef" in source else "redis://h"
        found[variable["name"]] = variable.get("value", known).replace("$(POD_IP)", POD)
    del found["REDIS_URL_FILE"]  # there is none here
    return found


def test_the_url_of_redis_is_a_file_that_changes_with_its_secret(objects: Objects) -> None:
    """Which a single file that is mounted for itself wouldn't, nor one of another name."""
    keys = dict(zip(PROGRAMS, ("INGRESS", "WORKER", "OPERATOR"), strict=True))
    for name, key in keys.items():
        container, pod = objects.container(name), objects.pods()[name]
        named = {each["name"]: each.get("value", "") for each in container["env"]}
        folder, _, file = named["REDIS_URL_FILE"].rpartition("/")
        (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == folder)
        assert "subPath" not in mount
        (volume,) = (each for each in pod["spec"]["volumes"] if each["name"] == mount["name"])
        assert volume["secret"]["secretName"] == "sellfern-redis"
        assert volume["secret"]["items"] == [{"key": f"REDIS_URL_{key}", "path": file}]
        url = b64decode(objects.one("Secret", "sellfern-redis")["data"][f"REDIS_URL_{key}"])
        assert RedisUrl(url.decode()).login[0] == {"OPERATOR": "operator"}.get(key, key.lower())


def test_pods_of_one_kind_stand_in_several_zones(objects: Objects) -> None:
    for name, pod in objects.pods().items():
        spread = pod["spec"].get("topologySpreadConstraints", [])
        keys = [each["topologyKey"] for each in spread]
        is_single = name == "sellfern-console" or objects.replicas(name) == 1
        assert keys == ([] if is_single else [ZONE, "kubernetes.io/hostname"]), name
        for each in spread:
            labels = pod["metadata"]["labels"]
            assert each["labelSelector"]["matchLabels"].items() <= labels.items()


@pytest.mark.parametrize(("program", "prefix"), [("ingress", "INGRESS"), ("worker", "WORKER")])
def test_an_admin_port_is_at_the_pods_address_and_on_loopback(
    objects: Objects, program: str, prefix: str
) -> None:
    """A `$(NAME)` is filled in only from what stands before it."""
    name = f"sellfern-{program}"
    listed = [each["name"] for each in objects.container(name)["env"]]
    assert listed.index("POD_IP") < listed.index(f"{prefix}_ADMIN_HOST")
    (source,) = (
        each["valueFrom"] for each in objects.container(name)["env"] if each["name"] == "POD_IP"
    )
    assert source == {"fieldRef": {"fieldPath": "status.podIP"}}
    said = environ(objects, name)[f"{prefix}_ADMIN_HOST"]
    assert said.split(",") == ["127.0.0.1", POD]
    (admin,) = objects.one("NetworkPolicy", name)["spec"]["ingress"][-1:]
    assert [each["port"] for each in admin["ports"]] == ["admin"]
    assert admin["from"]


def test_ports_probes_and_drain_times_are_those_of_the_programs(objects: Objects) -> None:
    ingress = IngressSettings.from_environ(environ(objects, "sellfern-ingress"))
    worker = WorkerSettings.from_mapping(environ(objects, "sellfern-worker"))
    assert ports(objects, "sellfern-ingress") == {
        "deliveries": ingress.address.port,
        "admin": ingress.admin.port,
    }
    assert ports(objects, "sellfern-worker") == {"admin": worker.admin.port}
    for name, seconds in (
        ("sellfern-ingress", ingress.drain_delay + ingress.drain_seconds),
        ("sellfern-worker", worker.drain),
    ):
        pod = objects.pods()[name]
        grace = pod["spec"]["terminationGracePeriodSeconds"]
        assert seconds < grace <= seconds + 15, name
        container = objects.container(name)
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}
        scraped = pod["metadata"]["annotations"]["prometheus.io/port"]
        assert int(scraped) == ports(objects, name)["admin"]


def ports(objects: Objects, name: str) -> dict[str, int]:
    """The ports of a container by name."""
    return {each["name"]: each["containerPort"] for each in objects.container(name)["ports"]}


def test_a_pod_that_stops_is_out_of_the_service_before_it_stops_listening(objects: Objects) -> None:
    probe = objects.container("sellfern-ingress")["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    assert parse_duration(environ(objects, "sellfern-ingress")["DRAIN_DELAY"]) > noticed


def test_every_pod_is_confined(objects: Objects) -> None:
    for name, pod in objects.pods().items():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"], name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        container = objects.container(name)
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert "memory" in container["resources"]["limits"], name


def test_each_program_has_what_selects_it(objects: Objects) -> None:
    for name in (*PROGRAMS, "sellfern-redis"):
        labels = objects.pods()[name]["metadata"]["labels"]
        policy = objects.one("NetworkPolicy", name)["spec"]["podSelector"]["matchLabels"]
        assert policy.items() <= labels.items(), name
    for kind, name in (
        ("PodDisruptionBudget", "sellfern-ingress"),
        ("PodDisruptionBudget", "sellfern-worker"),
    ):
        selector = objects.one(kind, name)["spec"]["selector"]["matchLabels"]
        assert selector.items() <= objects.pods()[name]["metadata"]["labels"].items()
    for name in ("sellfern-ingress", "sellfern-console", "sellfern-redis"):
        selector = objects.one("Service", name)["spec"]["selector"]
        assert selector.items() <= objects.pods()[name]["metadata"]["labels"].items()


METADATA = ("169.254.169.254", "fd00:ec2::254", "fd20:ce::254")
"""Where Amazon, Google and Azure tell a node's credentials to whoever asks from it."""


@pytest.mark.parametrize("address", METADATA)
def test_no_pod_reaches_the_metadata_of_its_node(objects: Objects, address: str) -> None:
    for name in (*PROGRAMS, "sellfern-redis"):
        assert not may_reach(objects, name, address, 80), name
        assert not may_reach(objects, name, address, 443), name


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7", "169.254.169.253"])
def test_a_worker_reaches_what_handlers_call(objects: Objects, address: str) -> None:
    assert may_reach(objects, "sellfern-worker", address, 443)
    assert not may_reach(objects, "sellfern-ingress", address, 443)


def test_a_worker_reaches_every_pod(objects: Objects) -> None:
    rules = objects.one("NetworkPolicy", "sellfern-worker")["spec"]["egress"]
    assert {"to": [{"namespaceSelector": {}}]} in rules


def may_reach(objects: Objects, name: str, address: str, port: int) -> bool:
    """Whether a program's policy lets it out to an address that is no pod's."""
    spec = objects.one("NetworkPolicy", name)["spec"]
    assert "Egress" in spec["policyTypes"]
    return any(lets_out(rule, address, port) for rule in spec["egress"])


def lets_out(rule: Any, address: str, port: int) -> bool:
    """Whether one rule does: one without ports is for all, one without peers to anywhere."""
    ports = [each["port"] for each in rule.get("ports", [])]
    peers = rule.get("to")
    is_there = peers is None or any(has(each.get("ipBlock"), address) for each in peers)
    return is_there and (not ports or port in ports)


def has(block: Any, address: str) -> bool:
    """Whether an address is in a block, and in none of its exceptions."""
    where = ip_address(address)
    return block is not None and (
        where in ip_network(block["cidr"])
        and not any(where in ip_network(each) for each in block.get("except", []))
    )


def test_every_secret_and_configuration_that_a_pod_names_is_there(objects: Objects) -> None:
    there = {"secret": objects.names("Secret"), "configMap": objects.names("ConfigMap")}
    for pod in objects.pods().values():
        for volume in pod["spec"].get("volumes", []):
            if "secret" in volume:
                assert volume["secret"]["secretName"] in there["secret"]
            if "configMap" in volume:
                assert volume["configMap"]["name"] in there["configMap"]
        for container in pod["spec"]["containers"]:
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    secret = objects.one("Secret", reference["name"])
                    is_there = reference["key"] in secret["data"]
                    assert is_there or reference.get("optional"), reference
            for source in container.get("envFrom", []):
                ((kind, reference),) = source.items()
                assert reference["name"] in there[kind.removesuffix("Ref")]


def test_the_ingress_alone_has_what_sellfern_signs_with(objects: Objects) -> None:
    assert "acme" in objects.one("Secret", "sellfern-endpoints")["data"]
    for name, pod in objects.pods().items():
        for volume in pod["spec"].get("volumes", []):
            if volume.get("secret", {}).get("secretName") == "sellfern-endpoints":
                items = volume["secret"].get("items", [{"key": "acme"}])
                assert ("acme" in [item["key"] for item in items]) == (name == "sellfern-ingress")


def test_workers_alone_have_a_teams_handlers_and_what_these_are_told(shop: Objects) -> None:
    """And in the image's own words: what its handlers read, and what the worker is to run."""
    folder = DEPLOY / "handlers"
    read = set(re.findall(r"settings\[.(\w+).\]", (folder / "shop/hooks.py").read_text()))
    told: set[str] = set()
    for name in shop.names("ConfigMap") | shop.names("Secret"):
        if name.startswith("shop-"):
            kind = "Secret" if "secrets" in name else "ConfigMap"
            told |= shop.one(kind, name)["data"].keys()
    assert read == told == {"ERP_URL", "ERP_TOKEN"}
    for name in PROGRAMS:
        container = shop.container(name)
        sources = [next(iter(each.values()))["name"] for each in container["envFrom"]]
        ours = [each for each in sources if each.startswith("shop-")]
        assert len(ours) == (2 if name == "sellfern-worker" else 0), name
        image = "shop-handlers" if name == "sellfern-worker" else "sellfern-webhooks"
        assert container["image"].startswith(f"{image}:"), name


def test_workers_follow_what_waits_and_ingresses_their_load(objects: Objects) -> None:
    if "ScaledObject" not in objects.kinds():
        return  # see test_without_keda_workers_follow_the_processor_time_that_they_take
    scaled = objects.one("ScaledObject", "sellfern-worker")
    assert scaled["spec"]["scaleTargetRef"]["name"] in objects.names("Deployment")
    triggers: dict[str, Any] = {each["name"]: each for each in scaled["spec"]["triggers"]}
    assert triggers.keys() == {"depth", "oldest"}
    for trigger in triggers.values():
        assert trigger["type"] == "prometheus"
        assert unknown_metrics(trigger["metadata"]["query"]) == set()
        assert re.fullmatch(r"[0-9]+", trigger["metadata"]["threshold"])
        # Absent is not zero: KEDA takes it for that unless it is told otherwise.
        assert trigger["metadata"]["ignoreNullValues"] == "false"
    hpa = objects.one("HorizontalPodAutoscaler", "sellfern-ingress")
    assert hpa["spec"]["scaleTargetRef"]["name"] in objects.names("Deployment")
    # Of a processor, and not of what its containers request.
    (share,) = re.findall(r"Add one at (\d+) % processor use", (DEPLOY / "sizing.md").read_text())
    (metric,) = hpa["spec"]["metrics"]
    assert metric["resource"]["target"] == {"type": "AverageValue", "averageValue": f"{share}0m"}
    for name in ("sellfern-ingress", "sellfern-worker"):
        assert "replicas" not in objects.one("Deployment", name)["spec"]


def test_the_redis_has_the_memory_that_its_configuration_allows(objects: Objects) -> None:
    container = objects.container("sellfern-redis")
    assert container["resources"]["limits"]["memory"] == "1536Mi"
    configuration = next(each for each in objects.names("ConfigMap") if "redis-conf" in each)
    assert "maxmemory 1gb\n" in objects.one("ConfigMap", configuration)["data"]["redis.conf"]


@pytest.fixture(scope="module")
def with_components(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """Build the one with Sentinels and every component."""
    return Objects(built(tmp_path_factory.mktemp("components"), COMPONENTS))


def test_without_keda_workers_follow_the_processor_time_that_they_take(
    with_components: Objects,
) -> None:
    assert "ScaledObject" not in with_components.kinds()
    hpa = with_components.one("HorizontalPodAutoscaler", "sellfern-worker")["spec"]
    assert hpa["scaleTargetRef"]["name"] in with_components.names("Deployment")
    (metric,) = hpa["metrics"]
    assert metric["resource"]["target"] == {"type": "AverageValue", "averageValue": "700m"}


def test_the_operators_rules_are_the_alerts_of_the_one_file(with_components: Objects) -> None:
    rules = with_components.one("PrometheusRule", "sellfern")["spec"]
    assert rules == yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())


@pytest.mark.parametrize("program", ["ingress", "worker"])
def test_the_operator_scrapes_the_admin_port_under_the_job_that_others_have_too(
    with_components: Objects, program: str
) -> None:
    name = f"sellfern-{program}"
    spec = with_components.one("PodMonitor", name)["spec"]
    pod = with_components.pods()[name]
    assert spec["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in ports(with_components, name)
    configuration = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    jobs = {each["job_name"] for each in configuration["scrape_configs"]}
    (relabeled,) = endpoint["relabelings"]
    assert relabeled["targetLabel"] == "job"
    assert relabeled["replacement"] == name
    assert name in jobs


def test_the_world_reaches_deliveries_by_tls_and_nothing_else(with_components: Objects) -> None:
    spec = with_components.one("Ingress", "sellfern-ingress")["spec"]
    (rule,) = spec["rules"]
    assert [rule["host"]] == spec["tls"][0]["hosts"]
    (path,) = rule["http"]["paths"]
    assert path["path"] == "/webhooks/"
    service = with_components.one("Service", path["backend"]["service"]["name"])
    (port,) = service["spec"]["ports"]
    assert (port["name"], port["targetPort"]) == ("deliveries", "deliveries")
    assert path["backend"]["service"]["port"] == {"name": port["name"]}


def test_the_first_server_begins_as_the_primary_that_sentinels_are_told(
    with_components: Objects,
) -> None:
    sentinel = with_components.container("sellfern-sentinel")
    (told,) = (each["value"] for each in sentinel["env"] if each["name"] == "PRIMARY")
    *shell, script = with_components.container("sellfern-redis")["command"]
    said = {}
    for number in range(with_components.replicas("sellfern-redis")):
        pod = f"sellfern-redis-{number}"
        environ = {"POD_NAME": pod}
        words = [*shell, script.replace("exec sh", "echo ${REPLICA_OF:-} #")]
        ended = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
        said[pod] = ended.stdout.strip()
        assert f"--replica-announce-ip {pod}.sellfern-redis" in script.replace("$POD_NAME", pod)
    assert said == {"sellfern-redis-0": "", "sellfern-redis-1": told, "sellfern-redis-2": told}
    assert told == "sellfern-redis-0.sellfern-redis 6379"


def test_sentinels_and_programs_name_pods_that_are_there(with_components: Objects) -> None:
    url = b64decode(with_components.one("Secret", "sellfern-redis")["data"]["REDIS_URL_INGRESS"])
    sentinels = RedisUrl(url.decode()).sentinels
    assert sentinels is not None
    number = with_components.replicas("sellfern-sentinel")
    pods = [f"sellfern-sentinel-{each}.sellfern-sentinel" for each in range(number)]
    assert sentinels.hosts == tuple((pod, 26379) for pod in pods)
    for name in ("sellfern-sentinel", "sellfern-redis"):
        service = with_components.one("Service", name)["spec"]
        assert service["clusterIP"] == "None"
        assert service["publishNotReadyAddresses"]
    settings = next(each for each in with_components.names("ConfigMap") if "settings" in each)
    waited = with_components.one("ConfigMap", settings)["data"]["WAIT_REPLICAS"]
    assert int(waited) == with_components.replicas("sellfern-redis") - 1
