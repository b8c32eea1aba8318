"""Sellfern's envelope: what every signed body has to be."""

from datetime import datetime
from typing import Annotated, Final

import msgspec

from shared.errors import EnvelopeError

LONGEST: Final = 256
"""Characters that an id or a type may have. Nothing is published; the sample ids have about 30."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST)]
_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Envelope(msgspec.Struct, frozen=True):
    """One event as the body claims it (source: the vendor's guide on webhooks).

    Unknown fields are tolerated. Until ownership is judged, ``organization_id`` is a claim.

    Attributes:
        id: ``evt_…``, 1 to 256 characters; redeliveries bear the same.
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


_decoder = msgspec.json.Decoder(Envelope)
_WHITE_SPACE: Final = b" \t\r\n"


def decode(body: bytes) -> Envelope:
    """Read the envelope in a body.

    Raises:
        EnvelopeError: it is not one; the message names the place, never the content.
    """
    try:
        envelope = _decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise EnvelopeError(str(exc)) from exc
    except msgspec.DecodeError as exc:
        raise EnvelopeError(f"not JSON: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise EnvelopeError("not JSON: not UTF-8") from exc
    except RecursionError as exc:
        raise EnvelopeError("not JSON: nested too deeply") from exc
    if bytes(envelope.data).lstrip(_WHITE_SPACE)[:1] != b"{":
        raise EnvelopeError("Expected `object` - at `$.data`")
    return envelope
