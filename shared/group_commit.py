"""What is submitted while a batch is on its way becomes the next batch."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class GroupCommit(Generic[Item, Result]):
    """Sends items in batches, one batch at a time.

    An item that finds nothing on its way is sent at once, so an idle system adds no delay; under
    load the batches grow by themselves.

    Args:
        send: sends a batch; answers a result or an exception for each item, in order. What it
            raises, every item of the batch is told.
        weigh: an item's size in bytes.
        most_items: items in a batch at the most.
        most_bytes: bytes in a batch at the most; a single larger item is a batch by itself.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        weigh: Callable[[Item], int],
        most_items: int = 256,
        most_bytes: int = 1 << 20,
    ) -> None:
        self._send = send
        self._weigh = weigh
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._flushing: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> "asyncio.Future[Result]":
        """Hand over an item; the future is done when its batch is."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._flush())
        return future

    async def drain(self) -> None:
        """Wait until everything that was submitted has been sent."""
        while self._flushing is not None:
            await asyncio.shield(self._flushing)

    async def _flush(self) -> None:
        try:
            while self._waiting:
                await self._send_batch(self._take_batch())
        finally:
            self._flushing = None

    def _take_batch(self) -> list[tuple[Item, "asyncio.Future[Result]"]]:
        batch = [self._waiting.popleft()]
        size = self._weigh(batch[0][0])
        while self._waiting and len(batch) < self._most_items:
            size += self._weigh(self._waiting[0][0])
            if size > self._most_bytes:
                break
            batch.append(self._waiting.popleft())
        return batch

    async def _send_batch(self, batch: list[tuple[Item, "asyncio.Future[Result]"]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._send([item for item, _ in batch])
        except Exception as exc:  # noqa: BLE001  whatever it is, those who wait must be told
            results = [exc] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():  # whoever submitted it has been cancelled meanwhile
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
