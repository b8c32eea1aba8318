"""A Redis as deploy/redis starts it: its configuration, its users, their passwords in files."""

import hashlib
import shutil
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis, find_redis_server

REDIS: Final = Path(__file__).parents[2] / "deploy" / "redis"
USERS: Final = ("ingress", "worker", "operator", "replica", "sentinel")
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
        options: those of `EmbeddedRedis`.
    """

    def __init__(
        self,
        place: Path,
        *,
        server: Path | None = None,
        primary: int | None = None,
        words: tuple[str, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(folder=place / "data", program=Path("/usr/bin/env"), **options)
        self._server = server or find_redis_server()
        self._replica_of = "" if primary is None else f"127.0.0.1 {primary}"
        self._start_words = words
        self._place = place
        for name in ("data", "secrets", "config"):
            (place / name).mkdir(parents=True)
        for file in REDIS.glob("*.conf"):
            shutil.copy(file, place / "config")
        self.allow((REDIS / "users.acl").read_text())
        for user in USERS:
            (place / "secrets" / user).write_text(f"{password(user)}\n")

    def set_line(self, file: str, line: str, other: str) -> None:
        """Change one line of a configuration file before the start."""
        path = self._place / "config" / file
        text = path.read_text()
        assert text.count(f"{line}\n") == 1
        path.write_text(text.replace(f"{line}\n", f"{other}\n"))

    def allow(self, users: str) -> None:
        """Write the users' rules, and those of one who may do everything, for the test itself."""
        secret = hashlib.sha256(password(_ADMIN).encode()).hexdigest()
        admin = f"user {_ADMIN} on #{secret} ~* &* +@all\n"
        (self._place / "config" / "users.acl").write_text(users + admin)

    def _words(self, port: int) -> list[str]:
        return [
            f"CONFIG_DIR={self._place / 'config'}",
            f"SECRETS_DIR={self._place / 'secrets'}",
            f"STATE_DIR={self._place / 'data'}",
            f"REDIS_SERVER={self._server}",
            f"REPLICA_OF={self._replica_of}",
            *("sh", str(REDIS / "start.sh"), *self._start_words, "--port", str(port)),
            *("--bind", "127.0.0.1", "--logfile", "redis.log"),
        ]

    def url_of(self, user: str) -> str:
        """The URL with which a user comes."""
        return f"redis://{user}:{password(user)}@127.0.0.1:{self.port}/0"

    def client_of(self, user: str = _ADMIN) -> Redis:
        """A client that comes as a user; to be closed."""
        client: Redis = Redis.from_url(self.url_of(user))
        return client
