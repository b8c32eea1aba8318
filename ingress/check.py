"""``python -m ingress check``: whether the ingress could start: settings, endpoints, Redis."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from time import time
from typing import Final

import click

from ingress.management.settings import read_all
from ingress.organization_bytes import OrganizationBytes
from ingress.primaries import before_named, where
from ingress.settings import IngressSettings
from shared.display import USAGE_ERROR
from shared.endpoints.endpoint import Endpoint, Endpoints
from shared.endpoints.file import EndpointsFile
from shared.endpoints.secret_doubts import Doubt, doubts
from shared.errors import SettingsError
from shared.program.commands import json_option
from shared.program.findings import Finding, counted, look, missing_secrets, shadows, show
from shared.program.in_force import print_settings, settings_option
from shared.program.setting_names import near_misses
from shared.queue.partitions import check_layout, open_partitions, places, warn_of_undivided
from shared.redis.cluster import Slot
from shared.redis.connection import open_redis
from shared.redis.durability import (
    Durability,
    Mode,
    check_durability,
    check_replicas,
    count_left_out,
)
from shared.redis.sentinel import check_sentinels
from shared.settings.config import CommonSettings
from shared.settings.durations import format_duration
from shared.settings.redis_url import RedisUrl

_NAMED: Final = 5
"""How many endpoints a finding names at the most."""


async def findings(environ: Mapping[str, str]) -> AsyncIterator[Finding]:
    """Look at everything that has to be right, and say each thing found."""
    # First: a name that is nearly right explains what comes behind it.
    for finding in [*shadows(), *near_misses(environ)]:
        yield finding
    found: list[Finding] = []
    settings = look(found, "settings", lambda: IngressSettings.from_environ(environ), _listeners)
    if settings is None:
        for finding in found:
            yield finding
        return
    found += _of_settings(settings)
    file = EndpointsFile(settings.common.endpoints_file, environ)
    look(found, "endpoints", file.load, counted)
    for finding in [*found, *_of_endpoints(file.current)]:
        yield finding
    async for finding in _of_redis(settings, file):
        yield finding


def _of_settings(settings: IngressSettings) -> Iterator[Finding]:
    drain, body = settings.drain_seconds, settings.limits.body_seconds
    # Not an error, since the worker, which has no bodies to read, takes the same setting.
    if drain < body:
        message = (
            f"DRAIN_SECONDS ({format_duration(drain)}) is less than BODY_TIMEOUT "
            f"({format_duration(body)}): a stop may cut slow bodies"
        )
        yield Finding("warning", "settings", "drain_cuts_bodies", message)
    if settings.organization_bytes == 0:
        yield _unbounded("MAX_ORGANIZATION_BYTES=0", "settings")


def _listeners(settings: IngressSettings) -> str:
    return f"deliveries on {settings.address}, admin site on {settings.admin}"


def _unbounded(what: str, subject: str) -> Finding:
    message = f"{what}: an organization's own events can fill Redis, and then all are refused"
    return Finding("warning", subject, "organization_bytes_unbounded", message)


def _of_endpoints(endpoints: Endpoints) -> Iterator[Finding]:
    for endpoint in filter(_is_locked_out, endpoints.values()):
        what = f"endpoint {endpoint.id}: the until of every secret has passed, so it refuses all"
        yield Finding("warning", "endpoints", "no_active_secret", what)
    yield from missing_secrets(endpoints, "answers 503")
    yield from _doubtful(endpoints)
    if unbounded := [endpoint.id for endpoint in endpoints.values() if endpoint.max_bytes == 0]:
        yield _unbounded(f"max_bytes = 0 of {_listed(unbounded)}", "endpoints")


def _is_locked_out(endpoint: Endpoint) -> bool:
    now = time()
    # What only can't be read just now may come by itself; it is told as missing.
    return not endpoint.active(now) and not endpoint.lacks_secret(now)


def _doubtful(endpoints: Endpoints) -> Iterator[Finding]:
    """What is odd about secrets: a line for each kind, however many have it."""
    whose: dict[Doubt, dict[str, None]] = {}
    for endpoint in endpoints.values():
        for secret in endpoint.secrets:
            for doubt in doubts(secret.value, endpoint.scheme):
                whose.setdefault(doubt, {})[endpoint.id] = None
    for doubt, ids in whose.items():
        message = f"a secret of {_listed(list(ids))} {doubt.message}"
        yield Finding("warning", "endpoints", doubt.code, message)


def _listed(ids: list[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"endpoint {', '.join(ids[:_NAMED])}{more}"


async def _of_redis(settings: IngressSettings, file: EndpointsFile) -> AsyncIterator[Finding]:
    common, problems = settings.common, False
    try:
        clients = places(common)
    except SettingsError as exc:  # a certificate that the URL of a cluster names
        yield Finding("error", "redis", "settings_invalid", str(exc))
        return
    looks = (_of_primary(settings, url, slot, file) for url, slot in clients)
    found = await asyncio.gather(*looks)
    # What holds of several partitions of a cluster is said once.
    whose: dict[tuple[RedisUrl, Finding], list[int]] = {}
    for number, ((url, _), each) in enumerate(zip(clients, found, strict=True)):
        for finding in each:
            whose.setdefault((url, finding), []).append(number)
    for (_, finding), numbers in whose.items():
        problems |= finding.level == "error"
        named = "" if finding.code == "settings_invalid" else f"{where(common, *numbers)}: "
        yield replace(finding, message=named + finding.message)
    more = await _of_before(settings, file)
    if slot := clients[0][1]:
        more += _unserved(common.redis_url, slot.slots.unserved)
    for finding in more:
        problems |= finding.level == "error"
        yield finding
    # It does what it says, and may be meant; but nobody is to find out by a crash.
    if settings.durability.mode is Mode.MEMORY:
        message = "DURABILITY=memory: a crash of Redis loses events that were answered 202"
        yield Finding("warning", "redis", "memory_only", message)
    if not problems:
        for finding in await _of_layout(common):
            yield finding


async def _of_before(settings: IngressSettings, file: EndpointsFile) -> list[Finding]:
    if (url := settings.common.redis_url_before) is None:
        return []
    found = await _of_primary(settings, url, None, file)
    return [replace(each, message=f"{before_named(url)}: {each.message}") for each in found]


async def _of_layout(common: CommonSettings) -> list[Finding]:
    urls = " ".join(map(str, common.redis_urls))
    async with open_partitions(common, connections=1) as partitions:
        wrong = await check_layout(partitions, begins=False)
        undivided = await warn_of_undivided(partitions)
    found = [Finding("error", "redis", each.code, f"{urls}: {each.message}") for each in wrong]
    return found + [Finding("warning", "redis", "redis_undivided", text) for text in undivided]


async def _of_primary(
    settings: IngressSettings, url: RedisUrl, slot: Slot | None, file: EndpointsFile
) -> list[Finding]:
    durability = settings.durability_at(url)
    try:
        async with open_redis(url, slot=slot) as redis:
            problems = await check_durability(redis, durability)
            problems = problems or await check_replicas(redis, durability)
            left_out = await count_left_out(redis, durability)
            doubtful = await check_sentinels(url)
            held = OrganizationBytes(settings.organization_bytes, file)
            await held.look(redis)
    except SettingsError as exc:  # a certificate that the URL names
        return [Finding("error", "redis", "settings_invalid", str(exc))]
    found = [Finding("error", "redis", each.code, each.message) for each in problems]
    if not problems:
        found = [Finding("ok", "redis", "durable", _held(durability))]
    if left_out:
        found.append(_left_out(durability.replicas, left_out))
    # With Sentinel as well; but whoever has it may have chosen so long ago.
    if url.nodes is not None and durability.needed_replicas and not (left_out or problems):
        found.append(_none_to_spare(durability.replicas))
    found += (Finding("warning", "redis", each.code, each.message) for each in doubtful)
    if not problems and held.lacks_maxmemory():
        found.append(_unbounded("expected a maxmemory, got none", "redis"))
    return found


def _unserved(url: RedisUrl, slots: int) -> Iterator[Finding]:
    # Those of a partition of ours are an error of it; the others may be wanted tomorrow.
    if slots:
        message = f"{url}: expected a node for each slot, got none for {slots}"
        yield Finding("warning", "redis", "redis_slots_unserved", message)


def _left_out(waited_for: int, left_out: int) -> Finding:
    there = f"{waited_for + left_out} replicas are there"
    loss = "a fail-over to one that lacks accepted events loses them"
    message = f"WAIT_REPLICAS={waited_for}, and {there}: {loss}"
    return Finding("warning", "redis", "replica_may_lag", message)


def _none_to_spare(waited_for: int) -> Finding:
    message = (
        f"WAIT_REPLICAS={waited_for}, and as many replicas are there: after a fail-over one is "
        f"missing, and all is refused; expected {waited_for + 1} of each primary"
    )
    return Finding("warning", "redis", "no_replica_to_spare", message)


def _held(durability: Durability) -> str:
    holds = f"DURABILITY={durability.mode.value} holds"
    if not durability.needed_replicas:
        return holds
    where = "on the disk" if durability.waits_for_disk else "in the memory"
    return f"{holds}: {where} of the primary and of {durability.needed_replicas} replicas"


@click.command()
@settings_option
@json_option
def check(*, settings: bool, as_json: bool) -> None:
    """Look at the settings, the endpoints and the Redis. Exit code 2 when one is wrong."""
    if settings:
        print_settings(IngressSettings.from_reader, read_all, as_json=as_json)
    elif not asyncio.run(_show_findings(as_json=as_json)):
        raise SystemExit(USAGE_ERROR)


async def _show_findings(*, as_json: bool) -> bool:
    fine = True
    async for finding in findings(os.environ):
        show(finding, as_json=as_json)
        fine = fine and finding.level != "error"
    return fine
