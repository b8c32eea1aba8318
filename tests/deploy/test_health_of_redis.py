"""A Redis is asked whether it is well with a password that it knows, also while there are two."""

import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deploy.kubernetes_objects import DEPLOY
from tests.tools import tool

_ASKED: Final = '#!/bin/sh\n[ "$REDISCLI_AUTH $*" = "known --user operator ping" ] && echo PONG\n'


def in_compose() -> str:
    """The command there; what Compose itself fills in is written twice."""
    services: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return str(services["redis"]["healthcheck"]["test"][1]).replace("$$", "$")


def in_kubernetes() -> str:
    """The same."""
    objects: list[Any] = [*yaml.safe_load_all((DEPLOY / "redis" / "kubernetes.yaml").read_text())]
    (stateful,) = (each for each in objects if each["kind"] == "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    return str(container["startupProbe"]["exec"]["command"][2])


@pytest.mark.parametrize("command", [in_compose(), in_kubernetes()], ids=["compose", "kubernetes"])
@pytest.mark.parametrize("passwords", ["known", "known\nnot known yet\n"])
def test_it_is_asked_with_the_first_password_of_the_file(
    command: str, passwords: str, tmp_path: Path
) -> None:
    (tmp_path / "operator").write_text(passwords)
    (tmp_path / "redis-cli").write_text(_ASKED)
    (tmp_path / "redis-cli").chmod(0o755)
    here = command.replace("/run/secrets/redis", str(tmp_path))
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    asked = subprocess.run([tool("sh"), "-c", here], env=environ, check=False)
    assert asked.returncode == 0
