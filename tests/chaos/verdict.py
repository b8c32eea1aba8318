"""How an invariant fared."""

from dataclasses import dataclass
from typing import Final

HELD: Final = "held"
BROKEN: Final = "broken"
NOT_EXERCISED: Final = "not exercised"


@dataclass(frozen=True, slots=True)
class Finding:
    """One invariant and how it fared."""

    invariant: str
    verdict: str
    detail: str
