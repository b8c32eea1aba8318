"""Everything that a handler is developed with, on one machine, until Ctrl-C."""

import contextlib
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from deploy.local.embedded_cluster import embedded_cluster
from deploy.local.embedded_redis import kept_redis
from deploy.local.services import begun, changes, watched
from deploy.local.stage import doing, keep_running, perform, python_as_typed, short
from deploy.local.workbench import PORTS, Workbench, free_ports, prepare

FOLDER: Final = Path(".dev")
"""Where `make dev` and `make redis` keep everything; one of them at a time."""

# Apart from the others, since `make redis` needs it alone.
REDIS_PORT: Final = {"REDIS": 6379}
"""Where programs look for Redis that nobody has told where it is."""

_file = click.Path(path_type=Path, dir_okay=False)
_folder = click.Path(path_type=Path, file_okay=False)


def _kept_in(help_: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The option that names a folder which stays."""
    return click.option("--folder", type=_folder, default=FOLDER, show_default=True, help=help_)


@click.command()
@click.option(
    "--handlers",
    default="worker.handlers:handlers",
    show_default=True,
    metavar="PACKAGE.MODULE:NAME",
    help="Your registry of handlers.",
)
@click.option(
    "--project",
    type=_folder,
    default=Path(),
    help="The folder that they are imported from; default this one.",
)
@click.option("--endpoints", type=_file, help="Your endpoints file; default one that is made.")
@click.option(
    "--env-file",
    type=_file,
    help="Variables for all programs: settings such as HANDLER_TIMEOUT, and what handlers need.",
)
@_kept_in("Where data, endpoints and logs stay from one run to the next.")
@click.option("--fresh", is_flag=True, help="Forget first what Redis has kept.")
def main(*, folder: Path, **options: Any) -> None:
    """Run everything to develop handlers with, until Ctrl-C.

    Redis, the ingress, a worker that starts anew when a file beside the handlers changes, the
    console, and a Sellfern whose page sends events with a secret that the ingress knows. A port
    that is taken gives way to the next free one; the first lines say what is where.

    Of the shell's variables the programs get all but this project's settings: those stand in
    --env-file. Exit code 0 after Ctrl-C, 130 where it came before everything ran, 2 if a program
    but the worker doesn't start or ends. Whatever happens, all that was started is stopped.
    """
    raise SystemExit(perform("dev", partial(_develop, **options), kept=folder))


def _develop(
    folder: Path,
    *,
    handlers: str,
    project: Path,
    endpoints: Path | None,
    env_file: Path | None,
    fresh: bool,
) -> bool:
    """All of it; true at its end, which is Ctrl-C."""
    folder, project = folder.resolve(), project.resolve()
    # Before anything starts: a module that isn't there is told in a line, not by a worker's log.
    place, below = watched(handlers, project)
    with contextlib.ExitStack() as stack:
        with doing("starting Redis, Sellfern, the ingress and the console"):
            ports = free_ports(PORTS | REDIS_PORT)
            redis = stack.enter_context(kept_redis(folder, ports.pop("REDIS"), fresh=fresh))
            bench = prepare(
                folder,
                redis.url,
                ports,
                handlers=handlers,
                endpoints=endpoints,
                env_file=env_file,
            )
            services = stack.enter_context(begun(folder / "logs", project, bench, redis))
        # Only once all of it is there: what is printed is to be typed at once.
        for line in _opening(bench, handlers, place):
            click.echo(line)
        with contextlib.suppress(KeyboardInterrupt):
            for changed in changes(place, below=below):
                services.look(changed)
        # Outside of the suppression, so that a second Ctrl-C counts while they stop.
        services.stop()
    click.echo("Everything is stopped; what Redis has kept will be there again.")
    return True


@click.command()
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help=f"Listen here; default {REDIS_PORT['REDIS']}, or the next port that is free.",
)
@_kept_in("Where its data stays from one run to the next.")
@click.option("--fresh", is_flag=True, help="Forget first what it has kept.")
def redis(*, port: int | None, folder: Path, fresh: bool) -> None:
    """Run the bundled Redis alone until Ctrl-C, and print its URL.

    It is durable (appendfsync always), and is the one of `make dev`, which can't run meanwhile.
    """

    def play(folder: Path) -> bool:
        where = port or free_ports(REDIS_PORT)["REDIS"]
        with kept_redis(folder, where, fresh=fresh) as server:
            click.echo(server.url)
            click.echo(f"Its data is in {folder / 'redis'}. Ctrl-C stops it.", err=True)
            keep_running(server.check)
        return True

    raise SystemExit(perform("redis", play, kept=folder))


@click.command()
@click.option("--primaries", type=click.IntRange(1, 16), default=3, show_default=True)
@click.option("--replicas", type=click.IntRange(0, 4), default=2, show_default=True)
@click.option(
    "--node-timeout",
    type=click.FloatRange(0.5, 60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a node may not answer before it is taken for failed.",
)
def cluster(*, primaries: int, replicas: int, node_timeout: float) -> None:
    """Run a Redis Cluster of the bundled Redis until Ctrl-C, and print its URL.

    --replicas are those of each primary. A fail-over takes three primaries and a replica. Each node
    is durable (appendfsync always), but all that they keep is gone with the cluster.
    """

    def play(folder: Path) -> bool:
        with contextlib.ExitStack() as stack:
            with doing(f"starting {primaries * (1 + replicas)} nodes"):
                nodes = stack.enter_context(
                    embedded_cluster(
                        primaries, replicas=replicas, node_timeout=node_timeout, folder=folder
                    )
                )
            click.echo(nodes.url)
            waited = min(1, replicas)
            click.echo("To see whether an ingress may use it, from another terminal:", err=True)
            click.echo(
                f"  REDIS_URL={nodes.url} WAIT_REPLICAS={waited} {python_as_typed()} "
                "-m ingress check",
                err=True,
            )
            click.echo("Ctrl-C stops all its nodes, and forgets what they keep.", err=True)
            keep_running(nodes.check)
        return True

    raise SystemExit(perform("cluster", play))


def _opening(bench: Workbench, handlers: str, place: Path) -> Iterator[str]:
    """Where everything is, and how to send an event."""
    here = Path.cwd()
    rows = {
        "Sellfern": f"{bench.sellfern}  its page sends events",
        "ingress": f"{bench.ingress}/webhooks/{bench.endpoint}",
        "console": bench.at("CONSOLE"),
        "Redis": bench.settings["REDIS_URL"],
        "metrics": ", ".join(
            bench.at(name, "/metrics") for name in ("INGRESS_ADMIN", "WORKER_ADMIN")
        ),
        "handlers": f"{handlers}, anew when a file in {short(place, here)} changes",
        "endpoints": short(Path(bench.settings["ENDPOINTS_FILE"]), here),
    }
    width = max(map(len, rows))
    yield from (f"  {name:<{width}}  {what}" for name, what in rows.items())
    yield ""
    yield "Send an event, from another terminal (Ctrl-C here stops everything):"
    file = shlex.quote(short(bench.env_file, here))
    yield (
        f"  {python_as_typed()} -m ingress send --env-file {file} {bench.endpoint} order.updated "
        """--data '{"order_id": "1", "status": "paid"}'"""
    )
    yield ""
