"""A budget for the memory that decoded bodies take."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final

import msgspec

from shared.observe import metrics
from worker.pipeline.attempts import own_context

DEFAULT: Final = 128 * 1024 * 1024
"""Bytes: a quarter of what the worker's container may have."""

_PER_BYTE, _PER_ITEM, _PER_LIST, _PER_OBJECT = 4, 80, 120, 240
"""Bytes of Python for a byte of text (of four, where one letter needs as many), for an item or a
member, for a list, and for an object beside what is in it."""

_MOST_PER_BYTE: Final = _PER_BYTE + _PER_OBJECT // 2
"""No byte of JSON takes more: an object has two."""

_LARGE: Final = 64
"""What takes more than this part of the budget is large."""

Tell = Callable[[None], None]


def estimate(body: bytes) -> int:
    """Bytes that a body takes at the most once it is decoded to plain Python values.

    It counts what begins a value, whether it stands in text or not: a millisecond or two a MiB.
    """
    items = body.count(b",") + body.count(b":")
    values = _PER_ITEM * items + _PER_LIST * body.count(b"[") + _PER_OBJECT * body.count(b"{")
    return _PER_BYTE * len(body) + values


class Share(msgspec.Struct, eq=False):
    """What one event has of the budget, or waits for.

    Attributes:
        lane: where it waits.
        flow: whose it is; flows take turns.
        size: in bytes.
        tell: told once it is there, while it is waited for.
    """

    lane: "_Lane"
    flow: str
    size: int
    tell: Tell | None = None

    @property
    def waits(self) -> bool:
        """Whether it is still to come."""
        return self.tell is not None

    def take(self, tell: Tell) -> None:
        """Take it, at once where there is room and nobody waits; else once it is its turn."""
        self.lane.take(self, tell)

    def wait_no_longer(self) -> None:
        """Go on without it, if it is still to come."""
        tell = self.tell
        if tell is not None:
            self.lane.leave(self)
            tell(None)

    def give_back(self) -> None:
        """Let others have it; call it once."""
        self.lane.give_back(self)


class MemoryBudget:
    """Bounds what a worker's decoded bodies take at once, from before they are decoded.

    A quarter is for bodies so small that all slots' together stay below it: they aren't counted.
    A quarter is for those that are counted and not large, so that they needn't wait for large
    ones. Half is for the large ones; one that is larger than that runs alone among them. In each
    part who asks first comes first, and organizations take turns: so nobody waits for ever, be he
    large or small.

    Args:
        size: in bytes.
        slots: handlers that the worker runs at once.
    """

    def __init__(self, size: int = DEFAULT, *, slots: int = 100) -> None:
        # By the worst that so many bytes may come to, so that these need neither count nor turn.
        self.most_uncounted = size // 4 // (slots * _MOST_PER_BYTE)
        self._least_large = size // _LARGE
        self._small, self._large = _Lane(size // 4), _Lane(size // 2)
        self.is_closed = False
        """Whether nobody should begin to wait any more: the worker stops."""

    def share(self, flow: str, size: int) -> Share:
        """A share of so many bytes, to be taken."""
        return Share(self._large if size > self._least_large else self._small, flow, size)


class _Lane:
    """A part of the budget, first come first served within each flow."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._waiting: dict[str, dict[Share, None]] = {}
        self._looks = False
        self._context: Context = own_context()

    def take(self, share: Share, tell: Tell) -> None:
        # Not past those that wait, though it may fit where they don't: they would wait for ever.
        if not self._waiting and self._fits(share):
            self._give(share)
            tell(None)
            return
        share.tell = tell
        self._waiting.setdefault(share.flow, {})[share] = None
        metrics.DECODED_WAITING.inc()

    def leave(self, share: Share) -> None:
        """It isn't waited for any more, and takes nothing."""
        self._remove(share)
        # It is given back all the same, later, and has nothing to give.
        share.size = 0
        self._look_soon()

    def give_back(self, share: Share) -> None:
        if share.waits:
            self.leave(share)
            return
        self._taken -= share.size
        metrics.DECODED_BYTES.dec(share.size)
        self._look_soon()

    def _fits(self, share: Share) -> bool:
        # What is larger than all of it runs alone, or it would never.
        return self._taken == 0 or self._taken + share.size <= self._size

    def _give(self, share: Share) -> None:
        self._taken += share.size
        metrics.DECODED_BYTES.inc(share.size)

    def _remove(self, share: Share) -> None:
        """Take it out of those that wait; its flow's next turn comes after the others'."""
        flow = self._waiting.pop(share.flow)
        del flow[share]
        if flow:
            self._waiting[share.flow] = flow
        share.tell = None
        metrics.DECODED_WAITING.dec()

    def _look_soon(self) -> None:
        if self._waiting and not self._looks:
            self._looks = True
            # Later: who gives back is in the midst of a step, and in its event's context.
            asyncio.get_running_loop().call_soon(self._look, context=self._context)

    def _look(self) -> None:
        """One a turn of the loop: to decode a large one takes a tenth of a second."""
        self._looks = False
        if not self._waiting:
            return
        share = next(iter(next(iter(self._waiting.values()))))
        tell = share.tell
        if tell is None or not self._fits(share):
            return  # whoever gives back looks again
        self._remove(share)
        self._give(share)
        # Told last: its path goes on at once, and may give back before this returns.
        self._look_soon()
        tell(None)
