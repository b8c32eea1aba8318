"""Several partitions, in each of which an organization lives."""

from collections.abc import Sequence
from itertools import count
from typing import Any

from redis.asyncio import Redis

from shared.queue.partition import Partition, home
from shared.queue.partitions import Partitions
from tests.integration.workplace import Workplace, body
from worker import Event, Handlers, Organization, Reject

FOUR = 4


def at_home(partition: int, number: int = FOUR) -> str:
    """An organization that lives there."""
    names = (f"org_{each}" for each in count())
    return next(name for name in names if home(name, number) == partition)


ORGANIZATIONS = tuple(map(at_home, range(FOUR)))


def over(*redis: Redis, number: int = FOUR) -> Partitions:
    """So many partitions, dealt between these."""
    dealt = (Partition.at(each, redis[each % len(redis)]) for each in range(number))
    return Partitions(tuple(dealt))


class Shop:
    """The inside of a worker in each partition."""

    def __init__(self, partitions: Partitions) -> None:
        self.partitions = partitions
        self.places: Sequence[Workplace] = []
        for each in partitions:
            place = Workplace(each.redis, _handlers(), names=each.names)
            self.places = [*self.places, place]

    async def bury(self, partition: int, *event_ids: str) -> None:
        """Let events of the organization that lives there be rejected."""
        for event_id in event_ids:
            await self._accept(partition, event_id, data={"order_id": "bad"})
            await self.places[partition].handle_next()

    async def wait(self, partition: int, *event_ids: str) -> list[str]:
        """Accept events there; their jobs."""
        return [await self._accept(partition, each) for each in event_ids]

    async def work(self, partition: int) -> None:
        """Handle the next one there."""
        await self.places[partition].handle_next()

    async def _accept(self, partition: int, event_id: str, **changes: Any) -> str:
        organization = at_home(partition, len(self.partitions))
        signed = body(event_id, organization, **changes)
        (job,) = await self.places[partition].accept(signed, organization=organization)
        return job


def _handlers() -> Handlers:
    handlers = Handlers()

    @handlers.on("order.updated")
    async def store(event: Event[dict[str, str]], organization: Organization) -> Reject | None:
        if event.data["order_id"] == "bad":
            return Reject("no such order")
        await organization.state.put("last", event.id)
        return None

    return handlers
