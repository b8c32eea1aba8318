"""``python -m worker check``: whether a worker could start, and would do what is meant."""

import asyncio
import os
from collections.abc import Mapping
from typing import Final

import click

from shared import display
from shared.endpoints.file import EndpointsFile
from shared.errors import SettingsError
from shared.observe.logs import get_logger
from shared.observe.tracing import open_tracing
from shared.program.commands import json_option
from shared.program.findings import Finding, counted, look, missing_secrets, shadows, show
from shared.program.in_force import print_settings, settings_option
from shared.program.setting_names import near_misses
from shared.queue.partitions import check_layout, open_partitions, places, warn_of_undivided
from shared.redis.cluster import Slot
from shared.redis.connection import open_redis
from shared.redis.durability import check_server
from shared.redis.sentinel import check_sentinels
from shared.sellfern.reference_file import load_reference
from shared.settings.config import CommonSettings
from shared.settings.redis_url import RedisUrl
from worker.doubts import Parts, doubts
from worker.lifespans import Lifespans, Settings
from worker.loading import load_handlers
from worker.operate.console.settings import ConsoleSettings
from worker.registry import Handlers
from worker.settings import WorkerSettings

_PATIENCE: Final = 5.0
"""Seconds that the authors' lifespans get to begin, and to end."""


async def findings(environ: Mapping[str, str]) -> list[Finding]:
    """Look at everything that a start needs, and give each thing found.

    What a start would refuse is an error, but for a port: a worker that runs has it.
    """
    found = [*shadows(), *near_misses(environ)]
    settings = look(
        found,
        "settings",
        lambda: WorkerSettings.from_mapping(environ),
        lambda settings: f"concurrency {settings.concurrency}, admin site on {settings.admin}",
    )
    if settings is not None:
        _look_at_tracing(found, settings)
        handlers = _look_at_parts(found, settings, environ)
        found += await _of_redis(settings.common)
        if handlers is not None:
            found += await _of_lifespans(handlers, environ)
    return found


def _look_at_tracing(found: list[Finding], settings: WorkerSettings) -> None:
    mode = settings.common.tracing

    def begin() -> None:
        with open_tracing(mode, "sellfern-worker"):
            pass

    if mode != "off":
        look(found, "tracing", begin, lambda _: f"TRACING={mode}")


def _look_at_parts(
    found: list[Finding], settings: WorkerSettings, environ: Mapping[str, str]
) -> Handlers | None:
    endpoints = look(
        found,
        "endpoints",
        EndpointsFile(settings.common.endpoints_file, environ, verifies=False).load,
        counted,
    )
    if endpoints is not None:
        found += missing_secrets(endpoints, "fails what asks for its token")
    reference = look(
        found,
        "reference",
        lambda: load_reference(settings.common),
        lambda reference: f"events: {', '.join(reference.available_events())}",
    )
    handlers = look(
        found,
        "handlers",
        lambda: load_handlers(settings.handlers),
        lambda handlers: f"{settings.handlers}: {len(handlers)} registered",
    )
    if endpoints is not None and reference is not None and handlers is not None:
        found += doubts(Parts(handlers, reference, endpoints))
    return handlers


async def _of_redis(common: CommonSettings) -> list[Finding]:
    try:
        clients = places(common)
    except SettingsError as exc:  # a certificate that the URL of a cluster names
        return [Finding("error", "redis", "settings_invalid", str(exc))]
    looks = await asyncio.gather(*(_of_primary(url, slot) for url, slot in clients))
    # What all partitions of a cluster have in common is said once.
    found = list(dict.fromkeys(each for look in looks for each in look))
    if not any(each.level == "error" for each in found):
        async with open_partitions(common, connections=1) as partitions:
            problems = await check_layout(partitions, begins=False)
            doubtful = await warn_of_undivided(partitions)
        said = f"{common.redis_url}: "
        found += [Finding("error", "redis", each.code, said + each.message) for each in problems]
        found += [Finding("warning", "redis", "redis_undivided", each) for each in doubtful]
    return found


async def _of_primary(url: RedisUrl, slot: Slot | None) -> list[Finding]:
    try:
        async with open_redis(url, slot=slot) as redis:
            problems = await check_server(redis)
            doubtful = await check_sentinels(url)
    except SettingsError as exc:  # a certificate that the URL names
        return [Finding("error", "redis", "settings_invalid", str(exc))]
    found = [Finding("error", "redis", each.code, f"{url}: {each.message}") for each in problems]
    if not problems:
        found = [Finding("ok", "redis", "usable", f"{url}: can be worked with")]
    for each in doubtful:
        found.append(Finding("warning", "redis", each.code, f"{url}: {each.message}"))
    return found


async def _of_lifespans(handlers: Handlers, environ: Mapping[str, str]) -> list[Finding]:
    """Begin and end what handlers share, as a start would; what that waits for is an error here."""
    lifespans = Lifespans(tuple(handlers.lifespans()), Settings(environ), get_logger().bind())
    if not lifespans.lifespans:
        return []
    names = ", ".join(each.name for each in lifespans.lifespans)
    stop = asyncio.Event()
    bell = asyncio.get_running_loop().call_later(_PATIENCE, stop.set)
    try:
        if await lifespans.begin(stop):
            found = [Finding("ok", "lifespan", "usable", f"{names}: can begin")]
            return found + [each for it in lifespans.opened for each in await it.check()]
        (problem,) = lifespans.problems
        return [Finding("error", "lifespan", problem.code, problem.message)]
    except SettingsError as exc:
        return [Finding("error", "lifespan", "settings_invalid", str(exc), exc.detail)]
    finally:
        bell.cancel()
        await lifespans.end(_PATIENCE)


@click.command()
@settings_option
@json_option
def check(*, settings: bool, as_json: bool) -> None:
    """Look at all that a start needs, and at what may not be meant so. Exit code 2 for errors."""
    if settings:
        print_settings(ConsoleSettings.from_reader, as_json=as_json)  # and the worker's
        return
    found = asyncio.run(findings(os.environ))
    for finding in found:
        show(finding, as_json=as_json)
    if any(finding.level == "error" for finding in found):
        raise SystemExit(display.USAGE_ERROR)
