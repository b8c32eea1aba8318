"""The bytes that have come and aren't answered yet: counted where they arrive, bounded by stage."""

from collections import OrderedDict
from typing import Final, Protocol

from shared.observe import metrics

HEADS_BYTES: Final = 8 * 1024 * 1024
"""What all unfinished heads may hold together."""

STALLED_SECONDS: Final = 0.25
"""A body of which nothing has come for so long is the first to end for others."""

SMALL_BYTES: Final = 64 * 1024
"""A body that announces no more than this is the last to end for others."""

_SPARE: Final = 16
"""Where bodies end for others, so that a sixteenth is free again: to choose takes a while."""

_MOMENT: Final = 1e-9  # seconds: who has only begun is as fast as can be


class Sender(Protocol):
    """Whoever sends what is held."""

    def give_up(self) -> None:
        """End what is unfinished, since others need its bytes."""
        ...


class Stage:
    """What is unfinished in one way, in the order in which it began.

    Args:
        most: bytes that all of it may hold together.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self.holdings: OrderedDict[Holding, None] = OrderedDict()


class BytesInFlight:
    """All bytes that have come and aren't answered: of heads, of bodies, and read ahead.

    What is announced but has not come is not held against others: somebody who announces much
    and sends nothing would otherwise keep everybody out. Bodies that are being read share half,
    so that those that are complete always find room beside them.

    Args:
        most: how many there may be.
        heads: how many of them of unfinished heads.

    Attributes:
        held: how many there are.
    """

    def __init__(self, most: int, heads: int = HEADS_BYTES) -> None:
        self.most = most
        self.held = 0
        self.heads = Stage(heads)
        # The other half is for those that are complete, and wait for Redis.
        self.bodies = Stage(most // 2)
        metrics.INGRESS_BYTES_IN_FLIGHT.set_function(lambda: self.held)

    def make_room(self, now: float) -> None:
        """End unfinished heads, the oldest first, and bodies until the others have room."""
        while self.heads.held > self.heads.most:
            next(iter(self.heads.holdings)).end()
        if self.bodies.held <= self.bodies.most:
            return
        # Some more than has to be: else each piece that comes would have all bodies sorted.
        wanted = self.bodies.most - self.bodies.most // _SPARE
        # By what has come in its time: who sends a byte now and then is never idle for long.
        for holding in sorted(self.bodies.holdings, key=lambda each: each.merit(now)):
            if self.bodies.held <= wanted:
                break
            holding.end()


class Holding:
    """What one connection holds of the bytes in flight.

    Args:
        everybody: of which it is a part.
        sender: told when it has to end.
    """

    __slots__ = ("_all", "_began", "_is_small", "_last", "_sender", "size", "stage")

    def __init__(self, everybody: BytesInFlight, sender: Sender) -> None:
        self._all = everybody
        self._sender = sender
        self._began = self._last = 0.0
        self._is_small = False
        self.size = 0
        self.stage: Stage | None = None

    def take(self, size: int) -> None:
        """Hold ``size`` more bytes; fewer where it is negative."""
        self.size += size
        self._all.held += size
        if self.stage is not None:
            self.stage.held += size

    def wait(self, stage: Stage, now: float, announced: int | None = None) -> None:
        """Be unfinished, and have others end for it where there are too many bytes.

        Args:
            stage: in what way.
            now: seconds that only rise; something has come just now.
            announced: bytes of the whole body, where they are known.
        """
        if stage is not self.stage:
            self.go_on()
            self._began = now
            self._is_small = announced is not None and announced <= SMALL_BYTES
            self.stage = stage
            stage.held += self.size
            stage.holdings[self] = None
        self._last = now
        self._all.make_room(now)

    def go_on(self) -> None:
        """Be unfinished no more."""
        if self.stage is not None:
            self.stage.held -= self.size
            del self.stage.holdings[self]
            self.stage = None

    def keep(self, size: int) -> None:
        """Hold no more than ``size`` bytes, in no stage."""
        if self.stage is not None:
            self.go_on()
        if self.size > size:
            self._all.held -= self.size - size
            self.size = size

    def merit(self, now: float) -> tuple[bool, bool, float]:
        """What a body has for it; the least ends first."""
        is_going_on = now - self._last < STALLED_SECONDS
        return self._is_small, is_going_on, self.size / max(now - self._began, _MOMENT)

    def end(self) -> None:
        """End it for others: its bytes are theirs at once."""
        self.keep(0)
        self._sender.give_up()
