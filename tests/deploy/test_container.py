"""The container image: linted, made of what is there, well when its program is."""

import asyncio
import json
import re
import subprocess
import sys
import tomllib
from typing import Final

import pytest
from packaging.requirements import Requirement

from ingress.settings import IngressSettings
from shared.errors import Problem
from shared.program.admin import admin_site
from shared.program.listening import Address
from tests.acceptance.process import ROOT, run_command
from tests.deploy.kubernetes_objects import DEPLOY
from tests.tools import tool
from worker.settings import WorkerSettings

DOCKERFILE: Final = (DEPLOY / "Dockerfile").read_text()
OFFLINE: Final = ("--no-index", "--no-deps", "--no-build-isolation")
"""How pip builds with what is installed already, and fetches nothing."""

HEALTHY: Final = str(DEPLOY / "healthy.py")


@pytest.mark.parametrize("name", ["Dockerfile", "handlers/Dockerfile"])
def test_the_linter_has_nothing_to_say(name: str) -> None:
    ended = subprocess.run(
        [tool("hadolint"), DEPLOY / name], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (0, "")


def test_what_the_image_copies_is_there_and_reaches_the_builder() -> None:
    let_in = re.findall(r"^!(.+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for name in " ".join(copied).split():
        assert (ROOT / name).exists()
        assert any(name == each or name.startswith(f"{each}/") for each in let_in), name


def test_nothing_is_installed_that_no_hash_vouches_for() -> None:
    commands = re.findall(r"pip install (.+?)(?: && |\n)", DOCKERFILE.replace(" \\\n", " "))
    locked, own = (command.split() for command in commands)
    assert locked[0] == "--require-hashes"
    names = locked[2::2]
    assert names == ["requirements.lock", "requirements-build.lock"]
    assert own == [*OFFLINE, "."]


def test_an_image_of_handlers_installs_what_a_hash_vouches_for_and_is_nobody_at_the_end() -> None:
    """Built and run it is by `make image`."""
    text = (DEPLOY / "handlers/Dockerfile").read_text()
    (command,) = re.findall(r"^RUN pip install (.+)$", text, re.MULTILINE)
    assert "--require-hashes" in command
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["0", "10001:10001"]
    assert f'"/app/healthy.py", "{WorkerSettings.from_mapping({}).admin.port}"' in text
    pins = (DEPLOY / "handlers/requirements.txt").read_text()
    locked = (ROOT / "requirements.lock").read_text()
    for pin in re.findall(r"^[\w-]+==[\w.]+", pins, re.MULTILINE):
        ours = re.search(rf"^{pin.partition('==')[0]}==\S+", locked, re.MULTILINE)
        assert ours is None or ours[0] == pin, "the image would refuse it"


def test_what_builds_the_package_is_what_the_tests_build_it_with() -> None:
    """If `make setup` and the image differed in it, no test would see the image's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (wanted,) = map(Requirement, project["build-system"]["requires"])
    pins = re.findall(
        r"^(\S+)==(\S+)", (ROOT / "requirements-build.lock").read_text(), re.MULTILINE
    )
    assert [name for name, _ in pins] == [wanted.name]
    assert wanted.specifier.contains(pins[0][1])
    assert f"\n{wanted.name}=={pins[0][1]} \\\n" in (ROOT / "requirements-dev.lock").read_text()


def test_it_runs_as_nobody_in_particular_and_keeps_to_the_programs_ports() -> None:
    last = DOCKERFILE.split("\nFROM ")[-1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    pairs = re.findall(r"([A-Z_]+)=([^\s\\]+)", last.split("ENV ")[1].split("\n\n")[0])
    environ = dict(pairs)
    ingress, worker = IngressSettings.from_environ(environ), WorkerSettings.from_mapping(environ)
    assert ingress.address.hosts == ("0.0.0.0", "::")  # noqa: S104  # both families
    assert ingress.admin.hosts == worker.admin.hosts == ("127.0.0.1",)
    (exposed,) = re.findall(r"^EXPOSE (.+)$", last, re.MULTILINE)
    ports = {ingress.address.port, ingress.admin.port, worker.admin.port}
    assert {str(port) for port in ports} < set(exposed.split())
    assert f'"/app/healthy.py", "{ingress.admin.port}"' in last


def test_a_program_in_it_dumps_no_memory_and_is_the_first_process() -> None:
    (words,) = re.findall(r"^ENTRYPOINT (.+)$", DOCKERFILE, re.MULTILINE)
    tells = (
        "import os, resource, sys;"
        "print(os.getpid(), resource.getrlimit(resource.RLIMIT_CORE), sys.argv[1:])"
    )
    with subprocess.Popen(
        [*json.loads(words), sys.executable, "-c", tells, "two words"],
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        said, _ = started.communicate()
    assert said == f"{started.pid} (0, 0) ['two words']\n"


@pytest.mark.parametrize("problems", [[], [Problem("redis_unreachable", "no connection")]])
async def test_a_container_is_well_when_its_program_is_ready(problems: list[Problem]) -> None:
    async def ready() -> list[Problem]:
        return problems

    async with admin_site(Address("X", ("127.0.0.1",), 0), ready) as port:
        asked = [(str(port),), (str(port), "/livez"), (str(port), "/nothing"), ("1",)]
        ended = await asyncio.gather(
            *(run_command(sys.executable, HEALTHY, *words, environ={}) for words in asked)
        )
    assert [each.code for each in ended] == [1 if problems else 0, 0, 1, 1]
    assert {each.stderr for each in ended} == {""}
