"""The bundled Redis on what a folder keeps, also alone: ``make redis``."""

import contextlib
import fcntl
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from deploy.local.embedded_redis import EmbeddedRedis, RedisServerError
from deploy.local.ports import free_ports
from deploy.local.stage import perform
from shared.errors import SettingsError

FOLDER: Final = Path(".dev")
"""Where `make dev` and `make redis` keep everything; one of them at a time."""

PORT: Final = 6379
"""Where programs look for Redis that nobody has told where it is."""

_LOOK_SECONDS: Final = 0.2


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Have a folder alone while the block runs; it is made where it isn't there.

    Raises:
        SettingsError: another process has it; two servers would spoil each other's files.
        OSError: it can't be made or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            got = f"{folder}, where `make dev` or `make redis` runs already"
            raise SettingsError("--folder", "a folder that nobody uses", got) from None
        yield


@contextlib.contextmanager
def kept_redis(folder: Path, port: int, *, fresh: bool) -> Iterator[EmbeddedRedis]:
    """Run a server on what it kept in a folder that is held.

    Args:
        folder: where everything is kept.
        port: to listen on.
        fresh: whether what it kept is forgotten first.

    Raises:
        RedisServerError: there is none to run, or it doesn't come up.
    """
    data = folder.resolve() / "redis"
    if fresh and data.exists():
        shutil.rmtree(data)
    data.mkdir(exist_ok=True)
    with EmbeddedRedis(appendfsync="always", folder=data, port=port) as redis:
        try:
            yield redis
        finally:
            redis.stop()  # a kill would lose nothing either, but leave the file to be mended


def refuse_ended(redis: EmbeddedRedis) -> None:
    """Return if the server runs.

    Raises:
        RedisServerError: it has ended by itself.
    """
    if not redis.is_running:
        raise RedisServerError(f"redis-server ended; {redis.folder / 'redis.log'} may say why")


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help=f"Listen here; default {PORT}, or the next port that is free.",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=FOLDER,
    show_default=True,
    help="Where its data stays from one run to the next.",
)
@click.option("--fresh", is_flag=True, help="Forget first what it has kept.")
def main(*, port: int | None, folder: Path, fresh: bool) -> None:
    """Run the bundled Redis alone until Ctrl-C, and print its URL.

    It is durable (appendfsync always), and is the one of `make dev`, which can't run meanwhile.
    """

    def play(folder: Path) -> bool:
        with (
            held(folder),
            kept_redis(folder, port or free_ports({"REDIS": PORT})["REDIS"], fresh=fresh) as redis,
        ):
            click.echo(redis.url)
            click.echo(f"Its data is in {folder / 'redis'}. Ctrl-C stops it.", err=True)
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    refuse_ended(redis)
                    time.sleep(_LOOK_SECONDS)
        return True

    raise SystemExit(perform("redis", play, kept=folder))


if __name__ == "__main__":
    main()
