"""The alerts in a real Prometheus, whose time passes faster than ours."""

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, Final

import pytest
import yaml
from aiohttp import ClientError, ClientSession
from redis.asyncio import Redis

from shared.observe import metrics
from shared.program.admin import admin_site
from shared.program.listening import Address
from shared.queue import gauges
from shared.queue.gauges import Gauges
from shared.queue.partitions import Partitions
from tests.conftest import StartRedis
from tests.deploy.test_monitoring import ALERTS, RUNBOOK
from tests.integration.workplace import Lines
from tests.ports import free_port
from tests.tools import tool

SPEED: Final = float(os.environ.get("ALERTS_SPEED", "30"))
SCRAPED: Final = 15 / SPEED
"""Seconds between two scrapes."""

_MILLISECONDS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_ADMIN: Final = Address("INGRESS_ADMIN", ("127.0.0.1",), 0)


def faster(text: str) -> str:
    """The same rules where every time in them is shorter."""

    def shorter(found: re.Match[str]) -> str:
        return f"{round(int(found[1]) * _MILLISECONDS[found[2]] / SPEED)}ms"

    return re.sub(r"(?<=[\[: ])(\d+)([smhd])(?=[\]):\n ])", shorter, text)


@dataclass
class Monitor:
    """A Prometheus that scrapes one target.

    Attributes:
        url: where it is.
        session: asks it.
    """

    url: str
    session: ClientSession

    async def ask(self, query: str) -> list[Any]:
        """What a query finds now."""
        params = {"query": query}
        with contextlib.suppress(ClientError):  # while it starts
            async with self.session.get(f"{self.url}/api/v1/query", params=params) as answer:
                if answer.ok:
                    found: list[Any] = (await answer.json())["data"]["result"]
                    return found
        return []

    async def sees(self, value: int) -> bool:
        """Whether that is the latest sample of whether Redis can be read."""
        found = await self.ask("sellfern_redis_up")
        return [each["value"][1] for each in found] == [str(value)]

    async def firing(self, alert: str) -> bool:
        """Whether it fires."""
        return bool(await self.ask(f'ALERTS{{alertname="{alert}", alertstate="firing"}}'))

    async def firing_since(self, alert: str, moment: float) -> bool:
        """Whether it has fired at any time since."""
        window = f"{round((time() - moment) * 1000)}ms"
        selected = f'ALERTS{{alertname="{alert}", alertstate="firing"}}'
        return bool(await self.ask(f"count_over_time({selected}[{window}])"))

    async def outage_seen(self, moment: float) -> int:
        """How many samples since then have said that Redis is away."""
        window = f"{round((time() - moment) * 1000)}ms"
        found = await self.ask(f"sellfern_redis_up[{window}]")
        return [value for each in found for _, value in each["values"]].count("0")


async def until(fact: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it, for as long as a machine may take on which much else runs."""
    async with asyncio.timeout(180):
        while not await fact():
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[Monitor]:
    """One with the shipped rules, which calls the target's job as a cluster might."""
    rules, configuration = folder / "alerts.yml", folder / "prometheus.yml"
    rules.write_text(faster(ALERTS.read_text()))
    job = {"job_name": "kubernetes-pods", "static_configs": [{"targets": [target]}]}
    timing = {f"{each}_interval": f"{round(SCRAPED * 1000)}ms" for each in ("scrape", "evaluation")}
    configuration.write_text(
        yaml.safe_dump(
            {
                "global": {**timing, "external_labels": {"runbook": RUNBOOK}}
                | {"scrape_timeout": f"{round(SCRAPED * 1000)}ms"},
                "rule_files": [str(rules)],
                "scrape_configs": [job],
            }
        )
    )
    address = f"127.0.0.1:{free_port()}"
    program = await asyncio.create_subprocess_exec(
        str(tool("prometheus")),
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
    )
    try:
        async with ClientSession() as session:
            yield Monitor(f"http://{address}", session)
    finally:
        program.kill()
        await program.wait()


@contextlib.asynccontextmanager
async def ingress(url: str) -> AsyncIterator[str]:
    """What an ingress shows of a Redis."""
    async with Redis.from_url(url) as redis:
        shown = Gauges(
            Partitions.only(redis), organizations=1, bytes_limit_of=lambda _: 0, log=Lines().log
        )
        metrics.tell_program("ingress")

        async def ready() -> list[Any]:
            return []

        with shown.registered():
            async with admin_site(_ADMIN, ready, refresh=shown.refresh) as port:
                yield f"127.0.0.1:{port}"


async def test_an_outage_is_told_while_it_lasts_and_a_blip_isn_t(
    fresh_redis_server: StartRedis,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(gauges, "CACHE_SECONDS", 0.0)
    server = fresh_redis_server(appendfsync=None)
    async with contextlib.AsyncExitStack() as stack:
        serving = await stack.enter_async_context(contextlib.AsyncExitStack())
        target = await serving.enter_async_context(ingress(server.url))
        monitor = await stack.enter_async_context(prometheus(tmp_path, target))
        await until(lambda: monitor.sees(1))

        for _ in range(20):  # on a slow machine a blip may be an outage
            moment = time()
            server.kill()
            await until(lambda: monitor.sees(0))
            await asyncio.to_thread(server.start)
            await until(lambda: monitor.sees(1))
            await asyncio.sleep(2 * SCRAPED)  # for what comes late
            if await monitor.outage_seen(moment) == 1:
                break
        else:
            pytest.fail("expected a blip of one sample in 20, got none")
        assert not await monitor.firing_since("SellfernRedisAway", moment)

        began = time()
        server.kill()
        await until(lambda: monitor.firing("SellfernRedisAway"))
        told = time() - began
        (alert,) = await monitor.ask('ALERTS{alertname="SellfernRedisAway"}')
        assert alert["metric"]["severity"] == "critical"
        ended = time()
        await asyncio.to_thread(server.start)
        await until(lambda: not_any(monitor.ask('ALERTS{alertname="SellfernRedisAway"}')))
        over = time() - ended
        # Else a second of a busy machine is a quarter of a minute.
        assert SPEED > 1 or max(told, over) <= 60
        assert not await monitor.firing("SellfernNoIngress")
        await serving.aclose()
        await until(lambda: monitor.firing("SellfernNoIngress"))
        await until(lambda: has_link(monitor))


async def not_any(found: Awaitable[list[Any]]) -> bool:
    """Whether a query has found nothing."""
    return not await found


async def has_link(monitor: Monitor) -> bool:
    """Whether an alert leads to where the runbook is."""
    async with monitor.session.get(f"{monitor.url}/api/v1/alerts") as answer:
        alerts = (await answer.json())["data"]["alerts"]
    links = {each["annotations"]["runbook_url"] for each in alerts}
    return f"{RUNBOOK}#sellfernnoingress" in links
