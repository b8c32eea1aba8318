"""What a request wants an endpoint to be, checked."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec

from deploy.sellfern.answer import invalid

LONGEST_URL: Final = 2048
MOST_EVENTS: Final = 100

_FIELDS: Final = ("url", "events", "enabled")
_URL: Final = f"an absolute http or https URL of at most {LONGEST_URL} characters"
_EVENTS: Final = f"1 to {MOST_EVENTS} different names of events"

Issues = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Draft:
    """An endpoint's fields; None is one that the request doesn't name."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    enabled: bool | None = None


def read_draft(body: bytes, known: Collection[str], *, complete: bool) -> Draft:
    """Read the body of a create or a change.

    Args:
        body: of the request.
        known: the names of events.
        complete: whether ``url`` and ``events`` must be there; otherwise one field must.

    Raises:
        Refused: it is not as documented; the details name every place.
    """
    fields = _fields(body)
    issues: Issues = [(name, "no such field") for name in fields if name not in _FIELDS]
    draft = Draft(
        _url(fields["url"], issues) if "url" in fields else None,
        _events(fields["events"], known, issues) if "events" in fields else None,
        _enabled(fields["enabled"], issues) if "enabled" in fields else None,
    )
    issues += _missing(fields, complete=complete)
    if issues:
        raise invalid("the endpoint is not as documented", *issues)
    return draft


def _fields(body: bytes) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("the body is not a JSON object", ("", "expected a JSON object")) from None


def _missing(fields: dict[str, object], *, complete: bool) -> Issues:
    if complete:
        return [(name, "required") for name in ("url", "events") if name not in fields]
    if not fields:
        return [("", f"expected one of {', '.join(_FIELDS)}")]
    return []


def _url(value: object, issues: Issues) -> str:
    if isinstance(value, str) and _is_url(value):
        return value
    issues.append(("url", f"expected {_URL}"))
    return ""


def _is_url(text: str) -> bool:
    if len(text) > LONGEST_URL or not text.isascii() or not text.isprintable() or " " in text:
        return False
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    plain = parts.username is None and not parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain


def _events(value: object, known: Collection[str], issues: Issues) -> tuple[str, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_EVENTS:
        issues.append(("events", f"expected {_EVENTS}"))
        return ()
    events: list[str] = []
    for index, name in enumerate(value):
        if not isinstance(name, str) or name not in known:
            issues.append((f"events[{index}]", "no such event"))
        elif name in events:
            issues.append((f"events[{index}]", "there already"))
        else:
            events.append(name)
    return tuple(events)


def _enabled(value: object, issues: Issues) -> bool:
    if not isinstance(value, bool):
        issues.append(("enabled", "expected true or false"))
    return bool(value)
