"""What makes a secret look wrong though it may be right: warnings, never refusals."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shared.endpoints.secret_source import VENDORS
from shared.sellfern.scheme import Scheme
from shared.settings.secret import LEAST_KEY, VENDOR_PREFIX, VENDOR_SECRET, Secret, has_inner_space

TINY: Final = "secret_tiny"
"""The code of a key that is short enough to be guessed."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing that is odd about a secret.

    Attributes:
        code: a stable name of it.
        message: what is odd; holds nothing of the secret.
    """

    code: str
    message: str


def doubts(secret: Secret, scheme: Scheme) -> Iterator[Doubt]:
    """What is odd about a secret of a scheme; mostly nothing."""
    text = secret.reveal()
    if not _is_public(text, scheme) and _key_length(text, scheme) < LEAST_KEY:
        message = f"has a key of less than {LEAST_KEY} bytes, so others can find it by trying"
        yield Doubt(TINY, message)
    if has_inner_space(text):
        yield Doubt("secret_odd", "has white space or quotes inside")
    # A warning: nothing is published on the form of Sellfern's secrets, so no rule is safe.
    if scheme in VENDORS and not VENDOR_SECRET.fullmatch(text):
        message = f"isn't {VENDOR_PREFIX} and letters, digits, +, /, - or _, so hardly Sellfern's"
        yield Doubt("secret_not_sellfern", message)


def _is_public(text: str, scheme: Scheme) -> bool:
    prefix = scheme.public_secret_prefix
    return bool(prefix) and text.startswith(prefix)


def _key_length(text: str, scheme: Scheme) -> int:
    key = text.removeprefix(scheme.secret_prefix or VENDOR_PREFIX)
    match scheme.secret_encoding:
        case "raw":
            return len(key.encode())
        case "base64":
            return len(key.rstrip("=")) * 3 // 4
        case "hex":
            return len(key) // 2
