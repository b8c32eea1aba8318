"""Facts about settings that fit together, and about ports that are free."""

import os
import socket
from pathlib import Path

import pytest

from deploy.local.workbench import HOST, PORTS, Workbench, free_ports, prepare
from shared.endpoints.file import EndpointsFile
from shared.program.env_file import read_env_file


def made(folder: Path, endpoints: Path | None = None, env_file: Path | None = None) -> Workbench:
    return prepare(
        folder, "redis://r", PORTS, handlers="a:b", endpoints=endpoints, env_file=env_file
    )


@pytest.mark.parametrize("name", ["plain", "it's", 'a "quoted" name', "two words", "back\\slash"])
def test_its_settings_are_read_from_the_env_file_as_they_are(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    bench = made(folder)
    assert read_env_file(bench.env_file) == bench.settings
    assert bench.env_file.stat().st_mode & 0o077 == 0


def test_the_endpoints_file_is_made_once_with_a_secret_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first, again, other = made(tmp_path), made(tmp_path), made(tmp_path / "other")
    secrets = [
        EndpointsFile(Path(each.settings["ENDPOINTS_FILE"]), {}).load()["acme"].secrets
        for each in (first, again, other)
    ]
    assert secrets[0] == secrets[1] != secrets[2]
    assert (first.endpoint, first.settings["SELLFERN_ORGANIZATION"]) == ("acme", "org_123")


def test_every_organization_of_a_file_has_a_key(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        '[[endpoint]]\nid = "b"\norganization_id = "org_b"\nsecrets = [{ env = "B" }]\n'
        '[[endpoint]]\nid = "a"\norganization_id = "org_a"\nsecrets = ["whsec_a"]\n'
    )
    variables = tmp_path / "variables"
    variables.write_text("B=whsec_b\nHANDLER_TIMEOUT=3s\nDRAIN_SECONDS=9s\nREDIS_URL=redis://mine")
    bench = made(tmp_path, file, variables)
    assert bench.sellfern_arguments[2:4] == [
        "--api-key=sk_test_org_b:org_b",
        "--api-key=sk_test_org_a:org_a",
    ]
    assert bench.settings["SELLFERN_API_KEY"] == "sk_test_org_b"
    environ = bench.environ
    assert (environ["B"], environ["HANDLER_TIMEOUT"]) == ("whsec_b", "3s")
    assert (environ["DRAIN_SECONDS"], environ["REDIS_URL"]) == ("9s", "redis://r")
    for_commands = read_env_file(bench.env_file)
    assert for_commands == {**bench.settings, "B": "whsec_b"}
    assert EndpointsFile(file, for_commands).load()["b"].secrets


def test_the_shells_variables_are_for_handlers_and_its_settings_for_something_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERP_TOKEN", "token")
    monkeypatch.setenv("DURABILITY", "memory")
    environ = made(tmp_path).environ
    assert environ["ERP_TOKEN"] == "token"
    assert "DURABILITY" not in environ
    assert environ["PATH"] == os.environ["PATH"]


def test_a_port_that_is_taken_gives_way_to_the_next_and_none_is_given_twice() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        found = free_ports({"A": port, "B": port})
    assert port not in found.values()
    assert len(set(found.values())) == 2
    assert all(port < each <= port + 99 for each in found.values())
