"""A handler that leaves as much garbage as an event's data tells it, in few objects."""

import msgspec

from worker import Event, Handlers, Organization

handlers = Handlers()


class Litter(msgspec.Struct):
    """What is left.

    Attributes:
        size: in bytes.
    """

    size: int = 0


class Cycle:
    """Refers to itself, so that only Python's collector ends it."""

    def __init__(self, size: int) -> None:
        self.me = self
        self.held = bytearray(size)


@handlers.on("*")
async def litter(event: Event[Litter], organization: Organization) -> None:
    """Leave it."""
    Cycle(event.data.size)
