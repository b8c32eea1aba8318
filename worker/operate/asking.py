"""Asks Redis something from the command line, such as whether an organization is known."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from shared import display
from shared.endpoints.endpoint import nearest
from shared.endpoints.text import endpoint_names
from shared.errors import Unavailable
from shared.queue import keys
from shared.queue.partition import Partition
from shared.queue.partitions import Partitions, open_partitions
from shared.queue.reach import Missing, Reach, reached, sentences
from shared.redis.connection import REDIS_ERRORS, end, translate
from shared.settings.config import CommonSettings

Answer = TypeVar("Answer")

anyway_option = click.option("--yes", is_flag=True, help="Though nobody knows the organization.")
"""Of a command that takes an organization: the ``yes`` of `known_organization`."""


def ask(question: Callable[[Reach], Awaitable[Answer]], *, connections: int = 1) -> Answer:
    """Ask it; one line on stderr and exit code 2 where Redis doesn't answer.

    A line on stderr tells as well which partitions of several were left out.

    Args:
        question: what is asked.
        connections: that it takes to each primary.

    Raises:
        SettingsError: where it is can't be told.
    """
    settings = CommonSettings.from_environ(os.environ)

    async def asked() -> Answer:
        async with open_partitions(settings, connections=connections) as partitions:
            return await _answered(_asked(question, partitions))

    try:
        return asyncio.run(asked())
    except (*REDIS_ERRORS, Unavailable) as exc:
        cause = translate(exc)
        if cause.code == "organization_moving":
            display.fail(f"{cause.message} (see: partitions move)")
        if cause.code == "redis_layout":
            display.fail(cause.message)
        display.fail(f"REDIS_URL: expected a Redis that answers, got {cause}")


async def _asked(question: Callable[[Reach], Awaitable[Answer]], partitions: Partitions) -> Answer:
    reach = await reached(partitions)
    answer = await question(reach)
    for sentence in sentences(reach.missing):
        click.echo(display.escape_controls(sentence), err=True)
    return answer


async def _answered(question: Awaitable[Answer]) -> Answer:
    """The answer; a Ctrl-C ends the asking for certain, which a cancellation alone does not."""
    asking = asyncio.ensure_future(question)
    try:
        # `wait` leaves alone what it waits for, so that it can be ended for certain below.
        await asyncio.wait([asking])
    except asyncio.CancelledError:
        await end([asking])
        raise
    return asking.result()


def known_organization(text: str, *, yes: bool, name: str = "ORGANIZATION") -> str:
    """The organization that somebody means: by its id, or by the id of one of its endpoints.

    Args:
        text: what was typed.
        yes: take also one that neither the endpoints file nor Redis knows.
        name: the argument or option that it was typed for.
    """
    checked_organization(text, name)
    file = CommonSettings.from_environ(os.environ).endpoints_file
    endpoints = endpoint_names(file)
    organizations = set(endpoints.values())
    if text in organizations:
        return text
    if text in endpoints:
        click.echo(f"{text} is an endpoint of {endpoints[text]}", err=True)
        return checked_organization(endpoints[text], f"ENDPOINTS_FILE ({file})")
    # Nobody knows it: a slip of the hand would else be taken for an organization without events.
    if not yes and not ask(lambda reach: _is_known(reach, text)):
        expected = f"an organization or an endpoint of {file}, or one that Redis knows (or --yes)"
        hint = nearest(text, [*organizations, *endpoints])
        display.fail(f"{name}: expected {expected}, got {text!r}{hint}")
    return text


def fail_if_any(
    missing: list[Missing], so: str = "nothing is lost, the same command goes on with the rest"
) -> None:
    """Say that it isn't done for all that were meant."""
    if missing:
        numbers = ", ".join(str(each.partition) for each in missing)
        display.fail(f"left out: partition {numbers}; {so}")


def checked_organization(organization: str, name: str = "ORGANIZATION") -> str:
    """The organization's id, if it can be one."""
    if not keys.ORGANIZATION_PATTERN.fullmatch(organization):
        display.fail(f"{name}: expected 1 to 64 letters, digits, _ or -, got {organization!r:.80}")
    return organization


async def _is_known(reach: Reach, organization: str) -> bool:
    return await has_footprint(await reach.living(organization), organization)


async def has_footprint(partition: Partition, organization: str, *, is_quick: bool = False) -> bool:
    """Whether there is an event, a mark, a value or a dead letter of it, or it has a rule.

    Where nothing else is found it walks over all keys in Redis, unless it is to be quick.
    """
    names = partition.names
    # What costs little first: the scan below goes over all keys.
    async with partition.redis.pipeline(transaction=False) as asked:
        for name in (names.waiting, names.running, names.flows):
            asked.hexists(name, organization)
        for prefix in ("", keys.PAUSE, keys.BREAKER):
            asked.hexists(names.organizations, prefix + organization)
        for kind in ("marks", "state"):  # its flow is forgotten once nothing waits
            asked.hexists(names.bytes, f"{organization}:{kind}")
        asked.exists(names.dead(organization), names.parked(organization))
        if any(await asked.execute()):
            return True
    if is_quick:
        return False
    for start in (names.state(organization, ""), names.event(organization, "")):
        async for _ in partition.redis.scan_iter(match=f"{start}*", count=1000):
            return True
    return False
