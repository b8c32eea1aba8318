"""Signed deliveries in a file, for clients that do nothing but send."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.bench import events


@dataclass(frozen=True, slots=True)
class RequestsFile:
    """Different deliveries of one length, one behind the other.

    Attributes:
        path: the file.
        size: bytes of each.
        number: how many there are.
    """

    path: Path
    size: int
    number: int

    @classmethod
    def write(
        cls, path: Path, number: int, *, kind: str = "0", body_bytes: int = events.BODY_BYTES
    ) -> Self:
        """Write so many; the kind tells them from those of another file."""
        size = 0
        with path.open("wb") as file:
            for organization, body in events.bodies(number, kind=kind, size=body_bytes):
                request = events.request(organization, body)
                size = len(request)
                file.write(request)
        return cls(path, size, number)

    def read(self, first: int) -> list[bytes]:
        """All from the given one on."""
        whole = self.path.read_bytes()
        return [
            whole[start : start + self.size]
            for start in range(first * self.size, len(whole), self.size)
        ]
