"""Takes jobs through the transitions by hand, one call at a time."""

from collections.abc import Sequence
from hashlib import sha1
from typing import Any

from redis.asyncio import Redis

from shared.queue import keys
from shared.queue.partition import Partition
from tests.integration.jobs import RECEIVED_AT
from worker.operate import revival
from worker.pipeline.transitions import (
    Claim,
    Mark,
    Marked,
    MarkRequest,
    Profile,
    Settled,
    Settlement,
    Transitions,
)
from worker.turns import Turn

RETENTION = 3_600_000
LATER = 3_600_000
"""Milliseconds until a retry is due: never by itself, within a test."""


class Hand:
    """One call is one transition of one job.

    Args:
        redis: a real one.
        has_turns: whether it knows handlers with a key.
    """

    def __init__(self, redis: Redis, *, has_turns: bool = False) -> None:
        self.redis = redis
        self.transitions = Transitions(Partition.only(redis), has_turns=has_turns)

    async def cap(self, most: int | None, organization: str = "org_a", weight: float = 1.0) -> None:
        """Let an organization hold so many slots."""
        await self.transitions.publish([Profile(organization, most, weight)])

    async def claim(self, most: int = 10, *, worker: str = "w1", holding: int = 0) -> list[Claim]:
        """Claim what is in line."""
        claimed = await self.transitions.claim(worker, most=most, lease=30, holding=holding)
        return [claim for claim, _ in claimed.jobs]

    async def claim_only(self, job: str, most: int = 10) -> Claim:
        """Claim what is in line, which is this job and no other."""
        (claim,) = await self.claim(most)
        assert claim.job == job
        return claim

    async def promote(self) -> None:
        """Let a worker look whose slots are taken: what is due comes in line, and stays there."""
        assert await self.claim(0) == []

    async def come_due(self, job: str) -> None:
        """Let a lease, or a delay, be over."""
        assert await self.redis.zscore(keys.QUEUE, job) >= keys.DEFERRED_FROM
        await self.redis.zadd(keys.QUEUE, {job: keys.DEFERRED_FROM})

    async def mark(
        self,
        claim: Claim,
        event_id: str = "evt_1",
        *,
        key: str | None = None,
        latest: str = "",
        quiet: int = 0,
    ) -> Mark:
        """Set, or find, the event's mark; with a key, ask for the turn of it."""
        return (await self.marked(claim, event_id, key=key, latest=latest, quiet=quiet)).mark

    async def marked(
        self,
        claim: Claim,
        event_id: str,
        *,
        key: str | None = None,
        latest: str = "",
        quiet: int = 0,
    ) -> Marked:
        """The same, with all that is answered."""
        turn = None if key is None else Turn(key, latest, quiet)
        (answer,) = await self.transitions.mark([MarkRequest(claim, event_id, turn=turn)])
        assert isinstance(answer, Marked), answer
        return answer

    async def read(self, *names: str, organization: str = "org_a") -> list[tuple[str, str]]:
        """Read values of an organization's state, as a commit says what was read."""
        raw = await self.redis.mget([keys.state(organization, name) for name in names])
        # The digest names the value that was read; nothing is protected by it.
        found = [sha1(each, usedforsecurity=False).hexdigest() if each else "" for each in raw]
        return list(zip(names, found, strict=True))

    async def done(
        self,
        claim: Claim,
        event_id: str = "evt_1",
        *,
        reads: Sequence[tuple[str, str]] = (),
        writes: Sequence[str] = (),
    ) -> Settled:
        """Commit, with a state that counts how often this event was applied, among others."""
        counts = [f"applied/{event_id}", *writes]
        operations = [("increment", each, -1, 1) for each in counts]
        return await self._settle(claim, "done", (RETENTION, reads, operations))

    async def retry(self, claim: Claim) -> Settled:
        """Ask for another attempt, later."""
        return await self._settle(claim, "retry", (LATER,))

    async def dead(self, claim: Claim, reason: str = "rejected") -> Settled:
        """Bury it."""
        details = (reason, "why", "order.updated", "acme", RECEIVED_AT, reason == "rejected")
        return await self._settle(claim, "dead", details)

    async def duplicate(self, claim: Claim) -> Settled:
        """Leave it to the job that carries the event."""
        return await self._settle(claim, "duplicate", ())

    async def hold(self, claim: Claim) -> Settled:
        """Leave the event dead: this redelivery is one too many."""
        return await self._settle(claim, "hold", ())

    async def wait_a_minute(self, event_id: str = "evt_1", organization: str = "org_a") -> None:
        """Let it be long ago that a redelivery revived the event."""
        name = keys.revivals(organization, event_id)
        number, _ = (await self.redis.get(name)).split(b":")
        seconds, microseconds = await self.redis.time()
        now = seconds * 1000 + microseconds // 1000
        await self.redis.set(name, b"%s:%d" % (number, now - 60_000), keepttl=True)

    async def release(self, claim: Claim) -> Settled:
        """Give it back."""
        return await self._settle(claim, "release", ())

    async def finish(self, claims: Sequence[Claim]) -> None:
        """Handle each as an event of its own, in batches."""
        marked = await self.transitions.mark([MarkRequest(each, each.job) for each in claims])
        assert [each.mark for each in marked if isinstance(each, Marked)] == [Mark.FRESH] * len(
            claims
        )
        details = (RETENTION, (), ())
        settled = await self.transitions.settle([Settlement(c, "done", details) for c in claims])
        assert settled == [Settled.DONE] * len(claims)

    async def replay(self, job: str) -> str:
        """Give a dead letter another life."""
        return await revival.replay_one(Partition.only(self.redis), job)

    async def applied(self, event_id: str = "evt_1", organization: str = "org_a") -> int:
        """How often the event has changed the state."""
        return int(await self.redis.get(keys.state(organization, f"applied/{event_id}")) or 0)

    async def _settle(self, claim: Claim, verb: str, details: tuple[Any, ...]) -> Settled:
        (answer,) = await self.transitions.settle([Settlement(claim, verb, details)])
        assert isinstance(answer, Settled), answer
        return answer
