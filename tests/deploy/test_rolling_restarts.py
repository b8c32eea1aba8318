"""Ingresses that are restarted one by one behind a proxy: no sender notices."""

import asyncio
import getpass
import os
import re
import signal
from asyncio.subprocess import PIPE
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import keys
from tests.acceptance.ingress_process import IngressProcess
from tests.acceptance.process import SECRET, environment, until
from tests.deploy.kubernetes_objects import DEPLOY
from tests.deploy.proxied import HOSTS, Ports, haproxy, is_open, program
from tests.ports import free_ports
from tests.tools import tool

HERE: Final = Path(__file__).parent / "proxies"
RESTARTS: Final = int(os.environ.get("PROXY_RESTARTS", "4"))
ENOUGH: Final = 20
"""Deliveries that a new ingress has taken before the next restart: the proxy knows it then."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy in front of the ingresses.

    Attributes:
        words: of its command.
        drain_delay: how long an ingress that ends goes on listening.
    """

    words: Callable[[Path, int, "Ports"], list[str]]
    drain_delay: str


def nginx(folder: Path, port: int, ports: Ports) -> list[str]:
    """nginx with lines for websockets."""
    each = "        server {}:{} fail_timeout=1s;"
    servers = "\n".join(each.format(host, ports.deliveries) for host in HOSTS)
    text = (HERE / "nginx.conf").read_text()
    filled = {
        "@USER@": getpass.getuser(),
        "@FOLDER@": str(folder),
        "@PORT@": str(port),
        "@SERVERS@": servers,
    }
    for name, value in filled.items():
        text = text.replace(name, value)
    configuration = folder / "nginx.conf"
    configuration.write_text(text)
    return [str(tool("nginx")), "-c", str(configuration), "-e", "stderr"]


def _shipped_with_haproxy() -> str:
    found = re.search(r"DRAIN_DELAY: (\S+)", (DEPLOY / "compose.yaml").read_text())
    assert found is not None
    return found[1]


class Ingresses:
    """Two ingresses, each at an address of its own.

    Args:
        environ: what both have.
        ports: what both have.
    """

    def __init__(self, environ: dict[str, str], ports: Ports) -> None:
        self._environ = environ
        self._ports = ports
        self._programs: dict[str, IngressProcess] = {}

    async def start(self, host: str) -> None:
        """Start the one at an address, and wait until it listens."""
        changes = {
            "INGRESS_HOST": host,
            "INGRESS_PORT": str(self._ports.deliveries),
            "INGRESS_ADMIN_HOST": host,
            "INGRESS_ADMIN_PORT": str(self._ports.admin),
        }
        begun = await IngressProcess.begin("ingress", {**self._environ, **changes})
        self._programs[host] = begun
        await begun.logged("ingress_listening")

    async def restart(self, host: str) -> None:
        """End the one at an address as a deploy does, and start another in its place."""
        ending = self._programs[host]
        ending.send(signal.SIGTERM)
        assert await ending.ended() == 0, ending.text
        await self.start(host)

    async def accepted(self, host: str) -> int:
        """How many deliveries the one at an address has accepted."""
        reader, writer = await asyncio.open_connection(host, self._ports.admin)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
        found = re.findall(
            r'^sellfern_ingress_requests_total\{.*outcome="accepted".*\} (\S+)$', text, re.MULTILINE
        )
        return int(sum(map(float, found)))

    async def stop(self) -> None:
        """End both."""
        await asyncio.gather(*(each.stop() for each in self._programs.values()))


@pytest.mark.parametrize(
    "proxy",
    [
        pytest.param(Proxy(haproxy, _shipped_with_haproxy()), id="haproxy"),
        pytest.param(Proxy(nginx, "200ms"), id="nginx"),
    ],
)
async def test_no_sender_notices_that_ingresses_are_restarted_one_by_one(
    redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path, proxy: Proxy
) -> None:
    port, *own = free_ports(3)
    ports = Ports(*own)
    environ = environment(redis_server.url, tmp_path, DRAIN_DELAY=proxy.drain_delay)
    ingresses = Ingresses(environ, ports)
    url = f"http://127.0.0.1:{port}/webhooks/acme"
    java = [str(tool("java")), "-Xshare:auto", str(HERE / "Sender.java"), url, SECRET]
    try:
        await asyncio.gather(*map(ingresses.start, HOSTS))
        async with program(*proxy.words(tmp_path, port, ports)):
            await until(lambda: is_open(port))
            async with program(*java, stdout=PIPE) as sender, asyncio.TaskGroup() as readers:
                assert sender.stdin is not None
                assert sender.stdout is not None
                said = readers.create_task(sender.stdout.read())
                for host in HOSTS * (RESTARTS // len(HOSTS)):

                    async def has_work(host: str = host) -> bool:
                        return await ingresses.accepted(host) >= ENOUGH

                    await until(has_work)
                    await ingresses.restart(host)
                    await until(has_work)
                sender.stdin.close()
    finally:
        await ingresses.stop()
    *failures, last = said.result().decode().splitlines()
    assert not failures
    accepted = int(last.removeprefix("accepted "))
    assert accepted >= RESTARTS * ENOUGH
    assert await redis.zcard(keys.ACCEPTED) == accepted
