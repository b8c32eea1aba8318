"""How pages write numbers, times and, whatever bytes its id is made of, a job."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import Mapping
from typing import Final

from shared.display import digits, duration, size

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}:[0-9a-f]{32}")
_ENCODED: Final = "b64."


def short(number: float) -> str:
    """A number in few characters: ``0.4``, ``12``, ``3.4k``, ``1.2M``."""
    for unit, least in (("M", 1e6), ("k", 1e3)):
        if abs(number) >= least:
            return f"{digits(number / least)}{unit}"
    return digits(number)


def age(seconds: float) -> str:
    """How long ago something was, to the second."""
    return "just now" if seconds < 1 else f"{duration(float(round(seconds)))} ago"


def by_kind(kinds: Mapping[str, int]) -> str:
    """What one holds in Redis: ``dead 1.2 MiB, waiting 30 KiB``."""
    return ", ".join(f"{kind} {size(its)}" for kind, its in sorted(kinds.items()))


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
