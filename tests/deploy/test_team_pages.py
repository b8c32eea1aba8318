"""The pages for three teams: each command is typed, or has its reason not to be."""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from deploy.local.embedded_redis import find_redis_server
from deploy.local.supervisor import launcher
from tests.acceptance.pages import Terminal, Typed, commands, environment_of
from tests.acceptance.process import PATIENCE, ROOT
from tests.deploy.kubernetes_objects import DEPLOY
from tests.deploy.pinned import pin
from tests.in_memory import folder_in_memory
from tests.tools import tool

SYSTEMD: Final = "deploy/systemd/README.md"
COMPOSE: Final = "deploy/compose.md"
KUBERNETES: Final = "deploy/kubernetes/README.md"
PAGES: Final = (SYSTEMD, COMPOSE, KUBERNETES)

NEEDS: Final = {
    SYSTEMD: {
        "apt-get": "installs",
        "systemctl disable": "is about a service of Debian's",
        "systemctl daemon-reload": "there is no daemon",
        "python3 -m venv": "downloads; tests/image does it in an image",
        ".venv/bin/python -m pip": "the same",
        "for group in": "would leave groups on this machine",
        "journalctl": "shows what a booted systemd has",
        "systemctl restart": "starts what another command here has started",
    },
    COMPOSE: {"docker compose": "runs images of others"},
    KUBERNETES: {
        "docker build": "needs a registry; tests/image builds it",
        "kubectl --namespace": "asks a Kubernetes",
        "sleep": "the same",
    },
}
"""How those commands begin that nobody can type here, and why."""


def untyped(page: str, command: str) -> bool:
    """Whether a command has a reason not to be typed."""
    return any(command.startswith(each) for each in NEEDS[page])


@pytest.mark.parametrize("page", PAGES)
def test_every_reason_not_to_type_a_command_is_used(page: str) -> None:
    for beginning in NEEDS[page]:
        assert any(command.startswith(beginning) for command in commands(page)), beginning


@dataclass
class Machine:
    """One with systemd that isn't booted: units are started by their own commands.

    Attributes:
        folder: in which /etc and the state of services are.
    """

    folder: Path
    environ: dict[str, str]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def places(self) -> dict[str, str]:
        """What stands for what the page and the units name."""
        return {
            "/opt/sellfern/.venv/bin/python": sys.executable,
            ".venv/bin/python": sys.executable,
            "/etc/sellfern": str(self.folder / "sellfern"),
            "/etc/systemd/system": str(self.folder / "units"),
            "/var/lib/sellfern-redis": str(self.folder / "state"),
            "deploy/systemd/files.sh": f"deploy/systemd/files.sh {self.folder / 'sellfern'}",
            "whsec_…": "whsec_as_Sellfern_shows_it",
        }

    def here(self, text: str) -> str:
        """A text of the page, or of a unit, for this machine."""
        for shown, place in self.places.items():
            text = re.sub(rf"(?<![\w/]){re.escape(shown)}", lambda _, p=place: p, text)
        return text

    def type(self, command: str) -> str:
        """Type a command; what it answers."""
        if command.startswith("systemctl enable --now "):
            for name in command.split()[3:]:
                self._start(name)
            return ""
        if command.startswith("systemctl reload "):
            (words,) = self._lines(command.rsplit(maxsplit=1)[-1], "ExecReload")
            return self._run(words, self._environ(command.rsplit(maxsplit=1)[-1]))
        return self._run(self.here(command), self.environ)

    def _run(self, words: str, environ: dict[str, str]) -> str:
        ended = subprocess.run(
            ["/bin/sh", "-c", words],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        assert ended.returncode == 0, f"{words}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def _start(self, name: str) -> None:
        (words,) = self._lines(name, "ExecStart")
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running[name] = subprocess.Popen(
                [*launcher(), "/bin/sh", "-c", f"exec {words}"],
                cwd=ROOT,
                env=self._environ(name),
                stdout=log,
                stderr=log,
            )

    def _lines(self, name: str, setting: str) -> list[str]:
        """The values of a setting of a unit."""
        template, at, instance = name.partition("@")
        unit = self.folder / "units" / f"{template}{at}.service"
        found = re.findall(rf"^{setting}=(.*)$", unit.read_text(), re.MULTILINE)
        return [self.here(each.replace("%i", instance)) for each in found]

    def _environ(self, name: str) -> dict[str, str]:
        environ = dict(self.environ)
        for line in self._lines(name, "Environment"):
            environ |= dict(each.split("=", 1) for each in line.split())
        for path in self._lines(name, "EnvironmentFile"):
            lines = Path(path).read_text().splitlines()
            environ |= dict(line.split("=", 1) for line in lines if not line.startswith("#"))
        return environ

    def logs(self) -> str:
        """What all units have said."""
        return "".join(path.read_text() for path in self.folder.glob("*.log"))

    def close(self) -> None:
        """End what runs, Redis last."""
        for process in reversed(self._running.values()):
            process.terminate()
            process.wait(PATIENCE)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with ExitStack() as stack:
        folder = folder_in_memory(stack)
        environ = environment_of(folder / "home")
        programs = folder / "programs"
        for name in ("units", "state", "programs"):
            (folder / name).mkdir()
        # There are no such groups here, and there are to be none after the test.
        (programs / "chgrp").write_text("#!/bin/sh\n")
        (programs / "chgrp").chmod(0o755)
        environ["PATH"] = f"{programs}:{tool('redis-cli').parent}:{environ['PATH']}"
        made = Machine(folder, environ)
        stack.callback(made.close)
        yield made


@pytest.mark.usefixtures("usual_ports")
def test_settings_that_would_hear_of_no_new_password_are_told_of(machine: Machine) -> None:
    """As an earlier version had them: `drop` would have everything refused that connects anew."""
    folder = machine.folder / "sellfern"
    folder.mkdir()
    (folder / "worker.env").write_text("REDIS_URL=redis://worker:old@127.0.0.1:6379/0\n")
    ended = subprocess.run(
        [tool("sh"), DEPLOY / "systemd" / "files.sh", folder],
        env=machine.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    (line,) = ended.stderr.splitlines()
    assert f"{folder}/worker.env: expected REDIS_URL_FILE={folder}/url-worker" in line
    assert ":old@" not in ended.stderr


def test_one_machine_gets_from_nothing_to_an_event_and_a_new_password(machine: Machine) -> None:
    # One that knows all the words of the users' rules.
    (machine.folder / "programs" / "redis-server").symlink_to(find_redis_server())
    answers = {}
    for command in commands(SYSTEMD):
        if untyped(SYSTEMD, command):
            continue
        # Programs that were started a moment ago aren't there yet.
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answers[command] = machine.type(command)
            except AssertionError as exc:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{exc}\n{machine.logs()}") from None
                time.sleep(0.2)
            else:
                break
    said = "".join(answers.values())
    assert re.search(r"^ok +redis +durable", said, re.MULTILINE)
    assert re.search(r"^202 ", said, re.MULTILINE)
    sent, status = (
        next(command for command in answers if word in command) for word in (" send ", " status")
    )
    # And by the new password, in new processes, all goes on; the programs that run go on as well.
    assert machine.type(sent.replace('"1"', '"2"')).startswith("202 ")
    assert re.search(r"handled +\d", machine.type(status))
    assert '"level":"error"' not in machine.logs()


@pytest.mark.parametrize("page", [COMPOSE, KUBERNETES])
def test_the_scripts_of_a_page_do_what_stands_behind_them(page: str, tmp_path: Path) -> None:
    """With a stand-in for registries; what would be sent to a Kubernetes is built."""
    ignored = shutil.ignore_patterns("secrets", ".env", "pinned", "rules.yaml", "__pycache__")
    shutil.copytree(DEPLOY, tmp_path / "deploy", ignore=ignored)
    # It leaves the stand-in behind.
    pin(tmp_path / "deploy/pin-images.sh", tmp_path / "deploy")
    environ = environment_of(tmp_path / "home")
    path = (tmp_path / "deploy" / "programs", tool("kubectl").parent, environ["PATH"])
    environ["PATH"] = ":".join(map(str, path))
    places = {" apply -k": " kustomize", " && sleep 150": ""}
    typed = [command for command in commands(page) if not untyped(page, command)]
    with Terminal(tmp_path, environ, tmp_path, places) as terminal:
        terminal.type_all([Typed(command, "") for command in typed])
    secrets = tmp_path / "deploy" / ("secrets" if page == COMPOSE else "kubernetes/example/secrets")
    assert (secrets / "acme").read_text() == "whsec_…"
    for user in ("ingress", "worker", "operator"):
        (password,) = (secrets / user).read_text().splitlines()
        file = secrets / (f"url_{user}" if page == COMPOSE else "redis.env")
        assert f"redis://{user}:{password}@" in file.read_text()
