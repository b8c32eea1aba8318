"""What is submitted while a batch is on its way becomes the next batch."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import copy_context
from functools import partial
from time import monotonic
from typing import Generic, TypeAlias, TypeVar, cast

Item = TypeVar("Item")
Result = TypeVar("Result")

Tell: TypeAlias = Callable[[Result | Exception], None]
"""Is told an item's result, or why there is none; once. What it raises, the loop's exception
handler gets, as from any callback: others of its batch are told all the same."""


_Posted: TypeAlias = tuple[Item, Tell[Result], int]


class GroupCommit(Generic[Item, Result]):
    """Sends items in batches.

    An item that finds nothing on its way is sent at once, so an idle system adds no delay; under
    load the batches grow by themselves. Flows take turns in them, so that nobody's flood keeps
    another's item waiting.

    Args:
        send: sends a batch; answers a result or an exception for each item, in order. What it
            raises, every item of the batch is told.
        most_items: items in a batch at the most.
        most_bytes: bytes in a batch at the most; a single larger item is a batch by itself.
        lanes: batches on their way at once at the most. All but the first are for what fills a
            batch: so they hide round trips where these are long, and leave batches large where they
            aren't. Items of a flow may overtake each other then.
        apart: seconds; where round trips are twice as long and more, what has waited for so long
            takes another lane though it fills no batch. ``None``: it waits until one is back.
        task: of which kind its tasks are. Not the loop's own, whose maker may ask for whom it is.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        most_items: int = 256,
        most_bytes: int = 1 << 20,
        lanes: int = 1,
        apart: float | None = None,
        task: type[asyncio.Task[None]] = asyncio.Task,
    ) -> None:
        self._send = send
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._lanes = lanes
        self._apart = apart
        self._task = task
        self._items = self._bytes = 0
        # Its tasks serve everybody: they must not see what the one who came first has set.
        self._context = copy_context()
        self._waiting: dict[Hashable, deque[_Posted[Item, Result]]] = {}
        self._flushing: set[asyncio.Task[None]] = set()
        self._is_starting = False
        self._round_trip = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_overdue = False

    def submit(self, item: Item, flow: Hashable, size: int) -> "asyncio.Future[Result]":
        """Hand over an item; the future is done when its batch is.

        Args:
            item: it.
            flow: whose it is.
            size: of it, in bytes.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.post(item, partial(resolve, future), flow, size)
        return future

    def post(self, item: Item, tell: Tell[Result], flow: Hashable, size: int) -> None:
        """Hand over an item for somebody who is told: that costs less than a future."""
        self._items += 1
        self._bytes += size
        self._waiting.setdefault(flow, deque()).append((item, tell, size))
        self._open_lane()

    async def drain(self) -> None:
        """Wait until everything that was submitted has been sent."""
        while self._flushing:
            await asyncio.wait(self._flushing)

    def _open_lane(self) -> None:
        """See to it that somebody will send what waits, if that isn't so already."""
        if self._is_starting or len(self._flushing) >= self._lanes:
            return
        if not self._flushing or self._may_go_beside():
            # The task begins in the loop's next turn: what comes until then is its own.
            self._is_starting = True
            loop = asyncio.get_running_loop()
            self._flushing.add(self._task(self._flush(), loop=loop, context=self._context))
        elif self._timer is None and self._apart and self._round_trip >= 2 * self._apart:
            apart = max(self._apart, self._round_trip / self._lanes)
            self._timer = asyncio.get_running_loop().call_later(
                apart, self._note_overdue, context=self._context
            )

    def _may_go_beside(self) -> bool:
        """Whether what waits may be sent while another batch is on its way."""
        is_full = self._items >= self._most_items or self._bytes >= self._most_bytes
        return is_full or self._is_overdue

    def _note_overdue(self) -> None:
        self._timer = None
        if self._waiting:
            self._is_overdue = True
            self._open_lane()

    async def _flush(self) -> None:
        self._is_starting = False
        try:
            while self._waiting and (len(self._flushing) == 1 or self._may_go_beside()):
                batch = self._take_batch()
                # Before the sending: what fills another batch needn't wait for its end.
                if self._waiting:
                    self._open_lane()
                await self._send_batch(batch)
        finally:
            self._flushing.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if self._waiting:
            self._open_lane()  # once it has waited for long enough

    def _take_batch(self) -> list[_Posted[Item, Result]]:
        """Take items from each flow in its turn."""
        batch: list[_Posted[Item, Result]] = []
        turns = deque(self._waiting)
        size = 0
        while turns and len(batch) < self._most_items:
            items = self._waiting[turns[0]]
            size += items[0][2]
            if batch and size > self._most_bytes:
                break
            batch.append(items.popleft())
            self._items -= 1
            self._bytes -= batch[-1][2]
            flow = turns.popleft()
            if items:
                turns.append(flow)
            else:
                del self._waiting[flow]
        self._is_overdue = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return batch

    async def _send_batch(self, batch: list[_Posted[Item, Result]]) -> None:
        results: Sequence[Result | Exception]
        began = monotonic()
        try:
            results = await self._send([item for item, _, _ in batch])
        except Exception as exc:  # noqa: BLE001  whatever it is, those who wait must be told
            results = [exc] * len(batch)
        # The shortest of late: a busy loop, or a pause of Redis, is no distance.
        took = monotonic() - began
        self._round_trip = min(took, 1.1 * self._round_trip or took)
        for (_, tell, _), result in zip(batch, results, strict=True):
            try:
                tell(result)
            except Exception as exc:  # noqa: BLE001  the others are yet to be told
                context = {"message": "told of its result, somebody failed", "exception": exc}
                asyncio.get_running_loop().call_exception_handler(context)


def resolve(future: "asyncio.Future[Result]", result: Result | Exception) -> None:
    """Tell somebody who waits for a future."""
    if future.done():  # whoever submitted it has been cancelled meanwhile
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
