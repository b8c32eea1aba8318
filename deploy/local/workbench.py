"""The settings of everything that a handler is developed with, made to fit together."""

import contextlib
import os
import secrets
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared.endpoints.file import EndpointsFile
from shared.files.atomic import replace_file
from shared.program.env_file import read_env_file
from shared.program.listening import Address, open_sockets, port_of
from shared.program.setting_names import NAMES

HOST: Final = "127.0.0.1"
_OTHERS: Final = 99
"""How many behind a taken one may stand in for it."""


def free_ports(usual: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name; somebody else may take one before its program does.

    Args:
        usual: by name, where people expect it.

    Raises:
        SettingsError: all are taken.
    """
    found: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name, port in usual.items():
            # Held until all are found, or two of them might be the same.
            sockets = open_sockets(Address(name, (HOST,), port, port + _OTHERS))
            for each in sockets:
                held.enter_context(each)
            found[name] = port_of(sockets)
    return found


SELLFERN: Final = "SELLFERN"
PORTS: Final = {
    "INGRESS": 8080,
    "INGRESS_ADMIN": 9101,
    "WORKER_ADMIN": 9102,
    "CONSOLE": 9200,
    SELLFERN: 8090,
}
"""Where people expect each program."""

# What differs from the programs' own: whoever has changed a handler waits for the new one, and
# looks at events that are nobody's.
_DEFAULTS: Final = {"DRAIN_SECONDS": "2s", "LEASE_SECONDS": "5s", "CONSOLE_SHOW_PAYLOADS": "1"}

# Lines are known by their fields, and a handler's ``print`` is seen at once.
_SHOWN: Final = {"LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"}

ENDPOINTS: Final = """\
# Made by `make dev`, and yours from now on: it is left as it is.

[[endpoint]]
id = "acme"
organization_id = "org_123"
secrets = ["{secret}"]
"""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What the programs are told.

    Attributes:
        settings: of this project; they are in ``env_file``, too, for commands.
        environ: all of the programs' environment.
        env_file: for ``--env-file``.
        endpoint: the first of the endpoints file.
        api_keys: a key of the simulated Sellfern for each organization.
    """

    settings: Mapping[str, str]
    environ: Mapping[str, str]
    env_file: Path
    endpoint: str
    api_keys: Mapping[str, str]

    @property
    def ingress(self) -> str:
        """Its URL, up to ``/webhooks/``."""
        return self.settings["INGRESS_PUBLIC_URL"]

    @property
    def sellfern(self) -> str:
        """The URL of the simulated Sellfern."""
        return self.settings["SELLFERN_API_URL"]

    def at(self, name: str, path: str = "") -> str:
        """The URL of a program by its name in `PORTS`."""
        return f"http://{HOST}:{self.settings[f'{name}_PORT']}{path}"

    @property
    def sellfern_arguments(self) -> list[str]:
        """Of the simulator's command line: it knows every endpoint with its secret."""
        keys = [f"--api-key={key}:{name}" for name, key in self.api_keys.items()]
        known = ["--endpoints-file", self.settings["ENDPOINTS_FILE"], "--ingress", self.ingress]
        return ["--port", self.sellfern.rpartition(":")[2], *keys, *known]


def prepare(
    folder: Path,
    redis_url: str,
    ports: Mapping[str, int],
    *,
    handlers: str,
    endpoints: Path | None,
    env_file: Path | None,
) -> Workbench:
    """Make the files that aren't there, and the settings.

    Args:
        folder: where the files are.
        redis_url: where Redis is.
        ports: one for each of `PORTS`.
        handlers: ``package.module:name``.
        endpoints: the endpoints file; None: one that is made.
        env_file: variables for all programs; None: none.

    Raises:
        SettingsError: there is something wrong with one of the two files.
        OSError: a file can't be written.
    """
    # Programs run in other folders than this one.
    path = endpoints.resolve() if endpoints else _made(folder / "endpoints.toml")
    # A REDIS_URL of the shell is meant for something else; what handlers read is meant for them.
    environ = {name: text for name, text in os.environ.items() if name not in NAMES}
    environ.update(read_env_file(env_file) if env_file else {})
    noted = _NotedEnvironment(environ)
    known = EndpointsFile(path, noted).load()
    first = next(iter(known.values()))
    keys = {name: f"sk_test_{name}" for name in known.organizations}
    settings = {
        "REDIS_URL": redis_url,
        "REDIS_URL_FILE": "",  # one in env_file would be the project's other Redis
        "ENDPOINTS_FILE": str(path),
        # Its own, not the project's: what is imported into it are the simulator's names.
        "REFERENCE_FILE": str(folder / "reference.toml"),
        "WORKER_HANDLERS": handlers,
        **{f"{name}_HOST": HOST for name in ports if name != SELLFERN},
        **{f"{name}_PORT": str(port) for name, port in ports.items() if name != SELLFERN},
        "INGRESS_PUBLIC_URL": f"http://{HOST}:{ports['INGRESS']}",
        "SELLFERN_API_URL": f"http://{HOST}:{ports[SELLFERN]}",
        "SELLFERN_API_KEY": keys[first.organization_id],
        "SELLFERN_ORGANIZATION": first.organization_id,
    }
    # Another terminal hasn't the variables that the endpoints file names.
    written = _written(folder / "env", {**settings, **noted.found})
    # What the env file says goes before a default, but not before where everything is: that has to
    # fit together.
    return Workbench(
        settings=settings,
        environ={**_DEFAULTS, **environ, **settings, **_SHOWN},
        env_file=written,
        endpoint=first.id,
        api_keys=keys,
    )


class _NotedEnvironment(UserDict[str, str]):
    """An environment that notes which of its variables are asked for, in ``found``."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(environ)
        self.found: dict[str, str] = {}

    def __getitem__(self, name: str) -> str:
        return self.found.setdefault(name, super().__getitem__(name))


def _made(path: Path) -> Path:
    if not path.exists():
        # Random, since the ingress may be reached by whoever shares this machine.
        text = ENDPOINTS.format(secret=f"whsec_{secrets.token_hex(24)}")
        replace_file(path, text.encode())
    return path


def _written(path: Path, settings: Mapping[str, str]) -> Path:
    lines = ["# Made by `make dev` at each start, for --env-file of a command.", ""]
    lines += [f"{name}={_quoted(text)}" for name, text in settings.items()]
    replace_file(path, ("\n".join(lines) + "\n").encode())
    return path


def _quoted(text: str) -> str:
    """As an env file has it; in single quotes everything but those means itself."""
    if "'" not in text:
        return f"'{text}'"
    # Only double quotes know escapes.
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
