"""Facts about five incidents: each is answered within three clicks from the console's overview.

One browser, one console, one worker, one Redis, in which all of them have happened.
"""

import os
import re
import time
from pathlib import Path
from typing import Any, Final, Literal

from playwright.async_api import Page, expect
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from shared.queue import job as jobs
from shared.queue import keys
from shared.queue.job import Delivery
from shared.queue.partition import Partition
from tests.acceptance.process import environment
from tests.acceptance.test_console import PATIENCE, browser, console, opened
from tests.acceptance.worker_process import running
from tests.integration.workplace import Lines, Workplace, body
from worker.operate import organizations
from worker.operate.relisting import relist

__all__ = ["browser"]

LETTERS: Final = 20_000 if "LARGE_CONSOLE" in os.environ else 2000
SAMPLE: Final = 5
WAITS: Final = 1500.0
"""Seconds for which the events of a paused organization have waited."""


async def a_bad_deploy(redis: Redis) -> None:
    """Let all events of an organization have died of one bug, each with an id of its own."""
    died = round(time.time() * 1000)
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(LETTERS):
            signed = body(f"evt_deploy_{number}", "org_deploy", type="order.created")
            job = jobs.job_id("org_deploy", signed)
            payload = jobs.encode(Delivery("acme", "org_deploy", died, {}, signed))
            told: dict[str, Any] = {
                "organization": "org_deploy",
                "endpoint": "acme",
                "type": "order.created",
            }
            told |= {"event_id": f"evt_deploy_{number}", "reason": "exhausted", "claims": 0}
            told |= {"error": f"KeyError: 'total' of order {number}", "attempts": 12}
            told |= {"received_at": died, "died_at": died, "payload": payload}
            pipe.hset(keys.dead_letter(job), mapping=told)
            pipe.zadd(keys.dead("org_deploy"), {job: died + number})
        pipe.hset(keys.BURIED, "org_deploy", str(LETTERS))
        await pipe.execute()
    await relist(Partition.only(redis), log=Lines().log)


async def one_that_waits(redis: Redis, place: Workplace) -> None:
    """Let an organization be paused by somebody, whose events have waited since."""
    await organizations.pause(place.partition, "org_slow", "until the stock is counted", "Ada")
    bodies = (body(f"evt_slow_{n}", "org_slow", type="order.fulfillment.shipped") for n in range(4))
    slow = await place.accept(*bodies, organization="org_slow")
    at = (time.time() - WAITS) * 1000
    await redis.zadd(keys.ACCEPTED, {job: at + number for number, job in enumerate(slow)})


class Clicks:
    """Somebody who counts how often they click."""

    def __init__(self, page: Page, address: str) -> None:
        self.page, self.address, self.number = page, address, 0

    async def begin(self) -> None:
        """Look at the overview."""
        self.number = 0
        await self.page.goto(self.address)

    async def on(self, name: str, role: Literal["link", "button"] = "link") -> None:
        """Click on the first whose name begins so."""
        self.number += 1
        assert self.number <= 3
        begins = re.compile(f"^{re.escape(name)}")
        await self.page.get_by_role(role, name=begins).first.click()

    async def sees(self, *texts: str, at: str = "main") -> None:
        """See all of these at once."""
        place = self.page.locator(at).first
        for text in texts:
            await expect(place).to_contain_text(text, timeout=PATIENCE)


async def test_five_incidents_are_answered_within_three_clicks(
    redis: Redis, redis_server: EmbeddedRedis, browser: str, tmp_path: Path
) -> None:
    place, goes_on = Workplace(redis), tmp_path / "goes-on"
    await a_bad_deploy(redis)
    await one_that_waits(redis, place)
    paid = (body(f"evt_erp_{number}", "org_erp", type="order.created") for number in range(8))
    await place.accept(*paid, organization="org_erp")
    environ = environment(
        redis_server.url,
        tmp_path,
        CONSOLE_PORT="0",
        WORKER_HANDLERS="tests.acceptance.incident_handlers:handlers",
        BREAKER_FAILURES="5",
        BREAKER_COOL_OFF="10m",
        INCIDENT_GOES_ON=str(goes_on),
    )
    async with (
        console(environ) as (_, address),
        running(environ),
        opened(browser, tmp_path) as page,
    ):
        clicks = Clicks(page, address)
        await the_erp_is_down(clicks)
        await the_age_of_the_queue_rises(clicks)
        await what_became_of_an_event(clicks)
        await a_deploy_was_bad(clicks)
        goes_on.touch()
        try:
            endless = body("evt_endless", "org_heavy", data={"order_id": "1"})
            await place.accept(endless, organization="org_heavy")
            await a_worker_is_stuck(clicks)
        finally:
            goes_on.unlink()


async def the_erp_is_down(clicks: Clicks) -> None:
    """Who, since when, why."""
    await clicks.begin()
    why = "ConnectionError: erp.example.com refuses connections"
    finding = ".findings li:has-text('org_erp')"
    await clicks.sees("its breaker is open", "attempts since", "ago", why, at=finding)
    await clicks.on("Look at org_erp")
    await clicks.sees("org_erp", at="h1")
    told = ("Last error", why, "Since", "UTC", "came to nothing", "Next try", "one event in")
    await clicks.sees("breaker open", "order.created", *told)


async def the_age_of_the_queue_rises(clicks: Clicks) -> None:
    """Which organization, and which type; and why."""
    await clicks.begin()
    await clicks.sees("The oldest unfinished event was accepted 25m", at=".findings")
    await clicks.on("Oldest events")
    await clicks.sees("evt_slow_0", "org_slow", "order.fulfillment.shipped", at="tbody tr")
    await clicks.on("org_slow")
    await clicks.sees("until the stock is counted, by Ada", "ago", at=".head")
    await clicks.sees("order.fulfillment.shipped", "4", "25m", at="tbody tr")


async def what_became_of_an_event(clicks: Clicks) -> None:
    """Its story, by its id."""
    await clicks.begin()
    await clicks.on("Events")
    await clicks.page.get_by_label("Event id or job").fill("evt_erp_0")
    await clicks.on("Find", "button")
    story = ("Accepted", "acme", "ttempt 1", "book", "erp.example.com refuses connections")
    await clicks.sees(*story, at=".timeline")
    await clicks.sees("org_erp", "order.created")


async def a_deploy_was_bad(clicks: Clicks) -> None:
    """One group, with its number; and what became of a sample: two clicks, and one back to it."""
    await clicks.begin()
    await clicks.on("KeyError: 'total' of order *")
    group = clicks.page.url
    await clicks.sees(f"{LETTERS:,} dead letters of this", "org_deploy", "order.created")
    await clicks.on(f"Replay a sample of {SAMPLE}", "button")
    await clicks.sees(f"{SAMPLE} replayed: {SAMPLE} handled", at=".notice")
    await clicks.on("Failure group")
    await clicks.sees(f"{LETTERS - SAMPLE:,} dead letters of this", f"{SAMPLE} handled")
    assert clicks.page.url == group


async def a_worker_is_stuck(clicks: Clicks) -> None:
    """Which worker, in which handler, with which event."""
    await clicks.begin()
    told = ("has stood still for", "reckon", "evt_endless", "org_heavy")
    await clicks.sees(*told, at=".findings li.bad")
    await clicks.on("Running now")
    row = clicks.page.locator("tbody tr").first
    for text in ("evt_endless", "order.updated", "reckon", "org_heavy", "blocks the worker"):
        await expect(row).to_contain_text(text, timeout=PATIENCE)
    await expect(row).not_to_contain_text("click")  # which has begun the program
