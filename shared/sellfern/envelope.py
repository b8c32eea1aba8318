r"""Sellfern's envelope: what every signed body has to be, or may be mended to.

A text that somebody cut at a number of UTF-16 units ends in half a pair, such as ``"Ren\ud83d"``.
Python, Ruby and JavaScript write and read that; a strict reader refuses the whole body for it.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

from shared.errors import EnvelopeError
from shared.observe import metrics
from shared.sellfern import identifier
from shared.sellfern.identifier import Id

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
"""What some senders put before their JSON."""

LOST: Final = "\ufffd"
"""Stands where something was that is no text: Unicode's replacement character."""

_OTHER_THAN_LOST: Final = "\ufffc"

# From the left: whole pairs and all other escapes are passed over, or `\\ud83d` (a backslash and
# five letters) would count as half a pair.
_ESCAPES: Final = re.compile(
    r"((?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\[^u])+)"
    r"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_NO_TEXT: Final = re.compile("[\udc80-\udcff]")  # what "surrogateescape" makes of a byte


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What is raised for a body, or a part of one, that can't be read."""


def mended(raw: bytes) -> bytes:
    """The JSON with `LOST` where half a pair or a byte that is no UTF-8 stood; else the same."""
    return _whole(raw.decode("utf-8", "replace"), LOST)


def decoded(
    decode: Callable[[bytes | msgspec.Raw], Any], raw: bytes | msgspec.Raw
) -> tuple[Any, bool]:
    """The JSON by a decoder, and whether it had to be mended: only where it can't be read as it is.

    Raises:
        msgspec.DecodeError: it is not of the decoder's type, or no JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        return decode(raw), False
    except msgspec.ValidationError:
        raise  # it is readable
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = mended(bytes(raw))
        if text == bytes(raw):
            raise
    return decode(text), True


def mended_otherwise(raw: bytes) -> bytes:
    """The same with another character: what differs from `mended` is not what was sent."""
    text = _NO_TEXT.sub(_OTHER_THAN_LOST, raw.decode("utf-8", "surrogateescape"))
    return _whole(text, _OTHER_THAN_LOST)


def _whole(text: str, instead: str) -> bytes:
    return _ESCAPES.sub(lambda found: found[1] or instead, text).encode()


LONGEST: Final = 256
"""Characters that an id or a type may have. Nothing is published; the sample ids have about 30."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Envelope(msgspec.Struct, frozen=True):
    """One event as the body claims it (source: the vendor's guide on webhooks).

    Unknown fields are tolerated. Until ownership is judged, ``organization_id`` is a claim.

    Attributes:
        id: ``evt_…``, 1 to 256 characters; redeliveries bear the same. A whole number is text
            here, as in ``organization_id``.
        type: such as ``order.updated``.
        created_at: when it happened, with an offset.
        organization_id: ``org_…``.
        data: the JSON object, not decoded yet.
    """

    id: _Name
    type: _Name
    created_at: _Time
    organization_id: _Name
    data: msgspec.Raw


class _Numbered(msgspec.Struct, frozen=True):
    """The same, where an id may be a whole number."""

    id: Id
    type: _Name
    created_at: _Time
    organization_id: Id
    data: msgspec.Raw


_decoder = msgspec.json.Decoder(Envelope)
_numbered_decoder = msgspec.json.Decoder(_Numbered, dec_hook=identifier.decoded)

_IDENTIFYING: Final = ("id", "type", "organization_id")
_WHITE_SPACE: Final = b" \t\r\n"


def decode(body: bytes) -> Envelope:
    """Read the envelope in a body.

    What most bodies are is tried first, and costs nothing more: ids that are text, JSON that is
    whole. Only where that fails are whole numbers let in, a byte order mark passed over, and
    broken text mended (`metrics.MENDED` counts it).

    Raises:
        EnvelopeError: it is not one; the message names the place, never the content.
    """
    try:
        envelope = _decoder.decode(body)
    except UNREADABLE:
        envelope = _read_with_care(body.removeprefix(BYTE_ORDER_MARK))
    if bytes(envelope.data).lstrip(_WHITE_SPACE)[:1] != b"{":
        raise EnvelopeError("Expected `object` - at `$.data`")
    return envelope


def _read_with_care(body: bytes) -> Envelope:
    try:
        return _numbered(body)
    except msgspec.ValidationError as exc:
        raise EnvelopeError(str(exc)) from exc
    except RecursionError as exc:
        raise EnvelopeError("not JSON: nested too deeply") from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return _read_mended(body, exc)


def _read_mended(body: bytes, why: Exception) -> Envelope:
    """Mend it and read it again; where that doesn't help, both reasons are told."""
    text = mended(body)
    if text == body:
        raise EnvelopeError(f"not JSON: {why}") from why
    try:
        envelope, other = _numbered(text), _numbered(mended_otherwise(body))
    except UNREADABLE as exc:
        raise EnvelopeError(f"not JSON: {_plain(why)}; once mended: {_plain(exc)}") from exc
    _refuse_mended_ids(envelope, other)
    metrics.MENDED.labels("envelope").inc()
    return envelope


def _refuse_mended_ids(envelope: Envelope, other: Envelope) -> None:
    """Two ids that differ in what was lost would become one, and an accepted event a duplicate."""
    for name in _IDENTIFYING:
        if getattr(envelope, name) != getattr(other, name):
            raise EnvelopeError(
                "Expected text in UTF-8, got half a surrogate pair or a byte that is none "
                f"- at `$.{name}`"
            )


def _plain(exc: Exception) -> str:
    """What is wrong, without what is there: Python's own text of it shows a byte."""
    return "not UTF-8" if isinstance(exc, UnicodeDecodeError) else str(exc)


def _numbered(body: bytes) -> Envelope:
    """Read it with ids that may be whole numbers."""
    found: Any = _numbered_decoder.decode(body)
    for name in ("id", "organization_id"):
        if not 1 <= len(getattr(found, name)) <= LONGEST:
            raise msgspec.ValidationError(
                f"Expected `str` of length 1 to {LONGEST} - at `$.{name}`"
            )
    return Envelope(found.id, found.type, found.created_at, found.organization_id, found.data)
