"""One Redis, one ingress and some workers: where they run, what they tell."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Final

from aiohttp import ClientSession, ClientTimeout
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.embedded_redis import EmbeddedRedis
from deploy.local.stage import doing
from deploy.local.supervisor import Program, Supervisor, bare_environment

_HOST: Final = "127.0.0.1"
_SCRAPE_SECONDS: Final = 5.0
_LISTENING: Final = ("INGRESS", "INGRESS_ADMIN", "WORKER_ADMIN")


@dataclass(frozen=True, slots=True)
class System:
    """What runs, and where.

    Attributes:
        supervisor: of the programs.
        environ: the settings of all of them.
        ingress: the program that takes deliveries in.
        workers: those that handle them.
        ingress_port: where deliveries go.
        ingress_admin: where the metrics of the ingress are.
        worker_admins: where those of the workers are.
    """

    supervisor: Supervisor
    environ: Mapping[str, str]
    ingress: Program
    workers: Sequence[Program]
    ingress_port: int
    ingress_admin: int
    worker_admins: Sequence[int]

    @property
    def partitions(self) -> int:
        """How many queues its Redis holds."""
        return int(self.environ.get("PARTITIONS", "1"))

    @property
    def url(self) -> str:
        """Of the ingress, up to the id of an endpoint."""
        return f"http://{_HOST}:{self.ingress_port}/webhooks/"

    def ask_worker(self, *questions: Sequence[str]) -> list[list[dict[str, Any]]]:
        """The lines that each of the worker's commands answers; raises as `Supervisor.ask` does."""
        asked = [(*words, "--json") for words in questions]
        answers = self.supervisor.ask("worker", asked, environ=self.environ)
        return [list(map(json.loads, each.splitlines())) for each in answers]


@contextmanager
def running_system(
    folder: Path,
    endpoints: Iterable[tuple[str, str, str]],
    settings: Mapping[str, str],
    *,
    workers: int,
) -> Iterator[System]:
    """Start everything, and stop it all at the end of the block.

    Args:
        folder: for the logs, what Redis keeps, and the endpoints file.
        endpoints: id, organization and secret of each.
        settings: what differs from the defaults, but for where everything is.
        workers: how many.

    Raises:
        RedisServerError: there is no Redis to start, or it doesn't come up.
        ProgramError: a program doesn't come up, or doesn't stop as it should.
    """
    redis_folder = folder / "redis"
    redis_folder.mkdir()
    environ = {**_environment(folder, endpoints), **settings}
    with ExitStack() as stack:
        with doing("starting Redis, the ingress and the workers"):
            # As durable as in production: a demo that loses nothing from memory proves nothing.
            server = EmbeddedRedis(appendfsync="always", folder=redis_folder)
            environ["REDIS_URL"] = stack.enter_context(server).url
            supervisor = stack.enter_context(Supervisor(folder))
            system = _started(supervisor, environ, workers)
        yield system


def _started(supervisor: Supervisor, environ: Mapping[str, str], workers: int) -> System:
    """Start the programs, and wait until they are there."""
    # All start at once and are waited for later: each needs a second, and none needs another.
    ingress = supervisor.start("ingress", "ingress", environ=environ)
    names = [f"worker {number}" for number in range(1, workers + 1)]
    started = [supervisor.start(name, "worker", environ=environ) for name in names]
    for worker in started:
        worker.wait_for("worker_started")
    return System(
        supervisor=supervisor,
        environ=environ,
        ingress=ingress,
        workers=started,
        ingress_port=_port(ingress, "ingress_listening"),
        ingress_admin=_port(ingress, "admin_listening"),
        worker_admins=[_port(worker, "admin_listening") for worker in started],
    )


def scraper() -> ClientSession:
    """What asks for metrics; it doesn't wait long for them."""
    return ClientSession(timeout=ClientTimeout(total=_SCRAPE_SECONDS))


async def outcomes(session: ClientSession, ports: Iterable[int], metric: str) -> Counter[str]:
    """How often each outcome was counted by a metric of the programs with these admin ports.

    Raises:
        aiohttp.ClientError: one doesn't answer.
    """
    return parse(metric, [await metrics(session, port) for port in ports])


async def metrics(session: ClientSession, port: int) -> str:
    """What the program with this admin port shows.

    Raises:
        aiohttp.ClientError: it doesn't answer.
    """
    async with session.get(f"http://{_HOST}:{port}/metrics") as response:
        response.raise_for_status()
        return await response.text()


def parse(metric: str, texts: Iterable[str]) -> Counter[str]:
    """The same from the texts of answers."""
    counts: Counter[str] = Counter()
    for family in chain.from_iterable(map(text_string_to_metric_families, texts)):
        for sample in family.samples:
            # Beside it may stand when it was created.
            if sample.name == f"{metric}_total":
                counts[sample.labels["outcome"]] += round(sample.value)
    return counts


def _environment(folder: Path, endpoints: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    """What all programs are told, with the endpoints file in the folder."""
    path = folder / "endpoints.toml"
    tables = (
        f'[[endpoint]]\nid = "{name}"\norganization_id = "{organization}"\nsecrets = ["{secret}"]\n'
        for name, organization, secret in endpoints
    )
    path.write_text("\n".join(tables), encoding="utf-8")
    # A demo must go the same way on each machine, whatever its shell has set.
    return bare_environment(
        os.environ,
        ENDPOINTS_FILE=str(path),
        LOG_FORMAT="json",
        # Everything on this machine alone, on ports that the system picks; which, the programs log.
        **{f"{name}_HOST": _HOST for name in _LISTENING},
        **{f"{name}_PORT": "0" for name in _LISTENING},
    )


def _port(program: Program, event: str) -> int:
    return int(program.wait_for(event)["port"])
