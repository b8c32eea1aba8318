"""How pages name a job, whatever bytes its id is made of."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}:[0-9a-f]{32}")
_ENCODED: Final = "b64."


def to_reference(job: str) -> str:
    """A text for an address: the id itself where it is one of ours."""
    if _PLAIN.fullmatch(job):
        return job
    raw = job.encode(errors="surrogateescape")
    return _ENCODED + urlsafe_b64encode(raw).decode().rstrip("=")


def from_reference(reference: str) -> str:
    """The job; a text that is no reference is taken as an id."""
    if not reference.startswith(_ENCODED):
        return reference
    try:
        raw = urlsafe_b64decode(reference.removeprefix(_ENCODED).encode(errors="replace") + b"==")
    except Error:
        return reference
    return raw.decode(errors="surrogateescape")
