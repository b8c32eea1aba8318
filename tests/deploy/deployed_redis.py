"""A Redis as deploy/redis starts it: its configuration, its users, their passwords in files."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis, find_redis_server

REDIS: Final = Path(__file__).parents[2] / "deploy" / "redis"
USERS: Final = ("ingress", "worker", "operator", "replica", "sentinel", "cluster")
_ADMIN: Final = "admin"


def password(user: str) -> str:
    """The password of a user in tests."""
    return f"password-of-{user}"


class DeployedRedis(EmbeddedRedis):
    """A server that start.sh has started.

    Args:
        place: an empty folder for its data, its secrets and the configuration.
        server: the server to run; None finds one.
        primary: the port of the server to be a replica of.
        words: what stands behind start.sh.
        told: further variables for it.
        options: those of `EmbeddedRedis`.
    """

    def __init__(
        self,
        place: Path,
        *,
        server: Path | None = None,
        primary: int | None = None,
        words: tuple[str, ...] = (),
        told: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(folder=place / "data", program=Path("/usr/bin/env"), **options)
        self._server = server or find_redis_server()
        self._replica_of = "" if primary is None else f"127.0.0.1 {primary}"
        self._start_words = words
        self._told = [f"{name}={value}" for name, value in (told or {}).items()]
        self._place = place
        for name in ("data", "secrets", "config"):
            (place / name).mkdir(parents=True)
        for file in REDIS.glob("*.conf"):
            shutil.copy(file, place / "config")
        for users in ("users.acl", "sentinel-users.acl"):
            self.allow((REDIS / users).read_text(), users)
        for user in USERS:
            (place / "secrets" / user).write_text(f"{password(user)}\n")

    def set_line(self, file: str, line: str, other: str) -> None:
        """Change one line of a configuration file before the start."""
        path = self._place / "config" / file
        text = path.read_text()
        assert text.count(f"{line}\n") == 1
        path.write_text(text.replace(f"{line}\n", f"{other}\n"))

    def allow(self, users: str, file: str = "users.acl") -> None:
        """Write the users' rules, and those of one who may do everything, for the test itself."""
        secret = hashlib.sha256(password(_ADMIN).encode()).hexdigest()
        admin = f"user {_ADMIN} on #{secret} ~* &* +@all\n"
        (self._place / "config" / file).write_text(users + admin)

    def _words(self, port: int) -> list[str]:
        return [
            f"CONFIG_DIR={self._place / 'config'}",
            f"SECRETS_DIR={self._place / 'secrets'}",
            f"STATE_DIR={self._place / 'data'}",
            f"REDIS_SERVER={self._server}",
            f"REPLICA_OF={self._replica_of}",
            *(*self._told, "sh", str(REDIS / "start.sh"), *self._start_words, "--port", str(port)),
            *("--bind", "127.0.0.1", "--logfile", "redis.log"),
        ]

    def url_of(self, user: str) -> str:
        """The URL with which a user comes."""
        return f"redis://{user}:{password(user)}@127.0.0.1:{self.port}/0"

    def client_of(self, user: str = _ADMIN) -> Redis:
        """A client that comes as a user; to be closed."""
        client: Redis = Redis.from_url(self.url_of(user))
        return client


def deployed_sentinel(place: Path, primary: int, *, quorum: int = 1) -> DeployedRedis:
    """A Sentinel that start.sh starts, which notices soon that a primary on this machine is away.

    Args:
        place: an empty folder.
        primary: its port.
        quorum: how many Sentinels must miss it.
    """
    sentinel = DeployedRedis(place, words=("sentinel",), told={"PRIMARY": f"127.0.0.1 {primary}"})
    monitor = "sentinel monitor sellfern redis-0 6379"  # the quorum is the file's, where it is 2
    sentinel.set_line("sentinel.conf", f"{monitor} 2", f"{monitor} {quorum}")
    down = "sentinel down-after-milliseconds sellfern"
    sentinel.set_line("sentinel.conf", f"{down} 5000", f"{down} 500")
    # An attempt that comes to nothing is repeated after twice that time.
    again = "sentinel failover-timeout sellfern"
    sentinel.set_line("sentinel.conf", f"{again} 30000", f"{again} 1000")
    return sentinel


def sentinel_url(user: str, sentinel: DeployedRedis) -> str:
    """The URL with which a user comes to the primary that a Sentinel names."""
    secret = password(user)
    return (
        f"redis+sentinel://{user}:{secret}@127.0.0.1:{sentinel.port}/sellfern/0"
        f"?sentinel_username={user}&sentinel_password={secret}"
    )
