"""A worker whose handler ends as it is told to."""

from dataclasses import replace
from typing import Any, Final

from redis.asyncio import Redis

from shared.queue.keys import Names
from shared.queue.partition import Partition
from tests.integration.workplace import POLICY, Workplace
from worker import Event, Handlers, Organization
from worker.operate import lookup
from worker.operate.lookup import FoundEvent
from worker.pipeline.policy import Backoff, Breaker
from worker.pipeline.transitions import Settled

WORKER: Final = "web-1-ab12cd"
HANDLER: Final = f"{__name__}.EndingShop.handle"


class EndingShop:
    """A worker that makes so many attempts, soon after one another."""

    def __init__(self, redis: Redis, attempts: int = 3, names: Names | None = None) -> None:
        self.redis = redis
        self.ends: list[object] = []
        handlers = Handlers()
        handlers.on("*")(self.handle)
        soon = Backoff(base=0.001, cap=0.001)
        policy = replace(POLICY, max_attempts=attempts, backoff=soon, breaker=Breaker(failures=0))
        self.place = Workplace(redis, handlers, policy, names)
        self.place.pipeline = replace(self.place.pipeline, worker=WORKER)

    async def handle(self, _event: Event[Any], _organization: Organization) -> None:
        end = self.ends.pop(0) if self.ends else None
        if isinstance(end, BaseException):
            raise end

    async def run(self, *ends: object) -> list[Settled]:
        """As many attempts as there are ends."""
        self.ends = list(ends)
        return [await self.place.handle_next() for _ in ends]

    async def found(self, job: str) -> FoundEvent:
        found = await lookup.find(Partition.only(self.redis), job)
        assert found is not None
        return found
