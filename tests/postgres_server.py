"""A PostgreSQL of the tests' own: Debian's programs in a folder that goes with it."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.supervisor import launcher
from tests.tools import missing

_PATIENCE = 30.0
_SOCKET = ".s.PGSQL.5432"

ADMIN = "postgres"
"""A superuser; no password is asked for."""


class PostgresServer:
    """A server on a Unix socket alone, in a user namespace where root starts it, whom it refuses.

    Args:
        durable: whether a commit waits for the disk.

    Attributes:
        folder: where its socket is.
    """

    def __init__(self, *, durable: bool = False) -> None:
        self._bin = _programs()
        # By a short name: the path of a socket has room for 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._durable = "on" if durable else "off"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        data = self.folder / "data"
        options = ("-A", "trust", "-U", ADMIN, "-E", "UTF8", "--locale=C", "--no-sync")
        made = self._run("initdb", "-D", data, *options)
        if made.returncode:
            missing(f"no PostgreSQL can be made here: {made.stderr.decode()[-500:]}")
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {"fsync": self._durable, "synchronous_commit": self._durable}
        words = [f"-c{name}={value}" for name, value in options.items()]
        words += ["-clisten_addresses=", "-cmax_connections=200"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # It ends with the tests, also when these are killed.
                launcher()
                + self._words("postgres", "-D", self.folder / "data", "-k", self.folder, *words),
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _PATIENCE
        while self._run("pg_isready", "-h", self.folder).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text(encoding="utf-8")[-1000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """End it by its own id, and its connections with it."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_PATIENCE)
        self._process = None

    def url(self, driver: str = "", name: str = ADMIN, user: str = ADMIN) -> str:
        """The URL of one of its databases."""
        return f"postgresql{driver}://{user}@/{name}?host={self.folder}"

    def execute(self, sql: str, name: str = ADMIN, user: str = ADMIN) -> str:
        """Run statements, each by itself; what they print."""
        words = ["-h", str(self.folder), "-U", user, "-d", name, "-XqAt", "-v", "ON_ERROR_STOP=1"]
        done = self._run("psql", *words, stdin=sql.encode())
        assert not done.returncode, done.stderr.decode()
        return done.stdout.decode()

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / _SOCKET

    def _run(
        self, name: str, *arguments: str | Path, stdin: bytes = b""
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            self._words(name, *arguments), input=stdin, capture_output=True, check=False
        )

    def _words(self, name: str, *arguments: str | Path) -> list[str]:
        words = [str(self._bin / name), *map(str, arguments)]
        if os.geteuid():
            return words
        # Another name for the same user, within: its files are its own either way.
        return [
            shutil.which("unshare") or "unshare",
            "--user",
            "--map-user=1000",
            "--map-group=1000",
            *words,
        ]


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    if on_path is None:
        missing("postgres isn't installed; it comes with the Debian package postgresql")
    return Path(on_path).parent
