"""Reads from a request which dead letters are meant."""

from collections.abc import Iterable, Mapping
from typing import Final

from aiohttp import web

from shared.queue import keys
from worker.operate import dead_letters
from worker.operate.dead_lists import Filter
from worker.operate.failure_groups import ID_PATTERN

FIELDS: Final = ("organization", "reason", "type", "group", "older", "younger")
"""What a filter may have, as addresses and forms name it."""

_LONGEST: Final = 256


def filled_in(values: Mapping[str, object], fields: Iterable[str] = FIELDS) -> dict[str, str]:
    """The fields of the filter that somebody has filled in."""
    texts = {name: str(values.get(name, "")).strip()[:_LONGEST] for name in fields}
    return {name: text for name, text in texts.items() if text}


def filter_of(given: Mapping[str, str]) -> Filter:
    """Which ones are meant.

    Raises:
        HTTPBadRequest: a field can't be; its text is what was expected.
    """
    organization, group, reason = (given.get(name) for name in ("organization", "group", "reason"))
    pattern = keys.ORGANIZATION_PATTERN
    if organization not in {None, "?"} and not pattern.fullmatch(str(organization)):
        raise web.HTTPBadRequest(text="Organization: expected up to 64 letters, digits, _ or -.")
    if reason is not None and reason not in dead_letters.REASONS:
        expected = ", ".join(dead_letters.REASONS)
        raise web.HTTPBadRequest(text=f"Reason: expected one of {expected}.")
    if group is not None and not ID_PATTERN.fullmatch(group):
        raise web.HTTPBadRequest(text="Group: expected the id of one, as its page shows it.")
    return Filter(
        organization=organization,
        reason=reason,
        type=given.get("type"),
        group=group,
        died_before=_ago("Died before", given.get("older")),
        died_after=_ago("Died within", given.get("younger")),
    )


def _ago(name: str, age: str | None) -> int | None:
    if age is None:
        return None
    try:
        return dead_letters.ago(age)
    except ValueError:
        raise web.HTTPBadRequest(
            text=f"{name}: expected a duration such as 30m, 2h or 7d."
        ) from None
