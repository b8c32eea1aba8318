"""Claims of several partitions, which share a worker's slots and its quiet for a suspect."""

import asyncio
import contextlib
import math
from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from shared.redis.connection import REDIS_ERRORS, server_of
from worker.engine.claims import Claims, Duty
from worker.pipeline.attempts import Slots
from worker.pipeline.transitions import Claim, Claimed, Settled, Settlement, pack

LATE: Final = (0.1, 4)
"""Seconds, and times the shortest claims of late, after which other partitions may have the slots
that a claim has reserved: a Redis that stands still would have them for good. One that is far, or
busy, has them for its round trip: what it brings would be given back, and asked for anew."""

_SAMPLE: Final = 100
"""Organizations by whose weights those of all that wait are estimated."""

_WEIGHED: Final = 0.5
"""Seconds from one such estimate to the next, while several partitions want slots."""


class Together:
    """What the claims of one worker in several partitions have to agree on.

    While one partition has work it may have every slot. While several are hungry, each may use
    slots in proportion to the weights of the organizations that wait there, and what one doesn't
    use of its share goes on to the others.

    A suspect has no neighbours from other partitions either. So a claim says that the worker holds
    nothing only after another has been told that a suspect waits, and while nothing is asked for
    beside it.

    Args:
        most: handlers that the worker runs at once.
        duty: its part in finding out which job ends workers.

    Attributes:
        all: its claims.
        waiting: those that wait until they may claim, who has waited longest first.
        changed: set whenever there may be a slot, or the worker may hold nothing.
    """

    def __init__(self, most: int, duty: Duty) -> None:
        self.duty = duty
        self.all: list[SharedClaims] = []
        self.waiting: dict[SharedClaims, None] = {}
        self.changed: asyncio.Event = _Told(self._note)
        self._most = most
        self._is_noted = False
        self._sums: tuple[float, int] | None = None
        self._quiet_for: SharedClaims | None = None

    @property
    def is_contested(self) -> bool:
        """Whether several partitions want slots."""
        return sum(each.is_hungry for each in self.all) > 1

    # Slots

    def free(self, claims: "SharedClaims") -> int:
        """How many slots one partition may have beside those that it has."""
        # Nobody else asks for any before it has said what of its suspect.
        if self._quiet_for is claims:
            return self._free()
        hungry, free = self._sums or self._sum()
        hungry += 0 if claims.is_hungry else claims.weight
        # Rounded up, or slots would be nobody's: who comes first has the last ones.
        share = math.ceil(self._most * claims.weight / hungry)
        return min(free, share - claims.slots.busy - claims.asked.reserved)

    def _free(self) -> int:
        return self._most - sum(each.slots.busy + each.asked.reserved for each in self.all)

    def _sum(self) -> tuple[float, int]:
        """The weight of all that are hungry, and how many slots nobody has."""
        return sum(each.weight for each in self.all if each.is_hungry), self._free()

    def _note(self) -> None:
        if self.waiting and not self._is_noted:
            self._is_noted = True
            # Once for all that happens in a turn of the loop.
            asyncio.get_running_loop().call_soon(self._wake)

    def _wake(self) -> None:
        """Have those go on for which there are slots, in their order.

        To have all of them look would cost the square of how many there are, at each change.
        """
        self._is_noted = False
        self._sums = self._sum()
        _, left = self._sums

        for each in list(self.waiting):
            if left <= 0:
                break
            left -= each.go_on()
        self._sums = None

    def room(self, claims: "SharedClaims", claimed: Claimed) -> int:
        """For how many that have come there are slots: others may have those of late ones."""
        if not self.may_ask(claims) or (claimed.suspects and not self._is_idle()):
            return 0
        return max(0, self._free())

    # Quiet

    def may_ask(self, claims: "SharedClaims") -> bool:
        """Whether a partition may be asked for more, or is to wait for another one's suspect.

        It doesn't wait for an answer that is late: what comes then is given back.
        """
        quiet_for = self._quiet_for
        return quiet_for is None or quiet_for is claims or quiet_for.asked.is_late

    def holding(self, claims: "SharedClaims") -> int:
        """How many jobs a partition is told that the worker holds; with none, it gives suspects."""
        held = sum(len(each.running) for each in self.all)
        beside = sum(each.asked.reserved for each in self.all if each is not claims)
        return held if self._quiet_for is claims and not beside else max(1, held)

    def alone(self, claims: "SharedClaims") -> Claim | None:
        """The suspect that was given alone, where its partition has to hear of neighbours."""
        alone = self.duty.alone(ChainMap[str, Any](*(each.running for each in self.all)))
        return alone if alone is not None and alone.token in claims.running else None

    async def be_quiet(self, claims: "SharedClaims", claimed: Claimed) -> None:
        """Take nothing, in any partition, for as long as an answer asks for."""
        if not self.may_ask(claims):
            return  # another one's suspect comes first; this partition says so once more
        self._quiet_for = claims
        is_idle = await self.duty.wait(claimed, self._until_idle)
        # Once idle, the next claim fetches the suspect for which that was. And beside suspects that
        # still run nobody takes anything before the next claim has said so.
        if is_idle == claimed.suspects:
            self._be_quiet_no_more()

    def heard(self, claims: "SharedClaims", claimed: Claimed | None) -> None:
        """Take note of a partition's answer, or that there is none."""
        asks_for_rest = claimed is not None and (claimed.quiet or claimed.suspects)
        if self._quiet_for is claims and not asks_for_rest:
            self._be_quiet_no_more()

    def _be_quiet_no_more(self) -> None:
        self._quiet_for = None
        self.changed.set()

    def _is_idle(self) -> bool:
        """Whether the worker holds nothing, and nothing is on its way to it."""
        return not any(each.running or each.asked.reserved for each in self.all)

    async def until_ended(self) -> None:
        """Wait until the last of its claims has."""
        for each in self.all:
            await each.ended.wait()

    async def _until_idle(self) -> None:
        while not self._is_idle():
            self.changed.clear()
            await self.changed.wait()


class _Told(asyncio.Event):
    """An event of which somebody else is told as well, each time that it is set."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def set(self) -> None:
        """Let those go on that wait for it."""
        super().set()
        self._told()


class SharedClaims(Claims):
    """What one worker holds of one of several partitions, and the loop that claims more.

    Args:
        together: what it shares with the others.

    Attributes:
        weight: of all organizations that wait in the partition, as far as that is known.
    """

    def __init__(self, *arguments: Any, together: Together, **options: Any) -> None:
        changed = _Told(together.changed.set)
        super().__init__(*arguments, duty=together.duty, changed=changed, **options)
        # Whoever has waited longest goes on with a slot, not the one that has had it.
        self.slots = Slots(together.changed)
        self.weight = 1.0
        self._together = together
        self._waits_for_slots = False
        self._is_away = False
        self.asked.late = LATE
        together.all.append(self)

    @property
    def is_hungry(self) -> bool:
        """Whether more would be claimed of this partition if there were slots."""
        is_wanted = self._is_more_in_line or self._waits_for_slots
        return is_wanted and not self.asked.is_late and not self.ended.is_set()

    async def claim_forever(self) -> None:
        """Claim until told to stop; end with the last of all: one that ends is begun anew."""
        await super().claim_forever()
        await self._together.until_ended()

    def free(self) -> int:
        """How many jobs it may take, as the worker's other partitions let it."""
        held = len(self.running) + self.asked.reserved
        free = min(self._together.free(self), 2 * self._most - held)
        # Whoever finds out whether Redis is back keeps no slots from others.
        return min(free, 1) if self._is_away else free

    def _may_ask(self) -> bool:
        return self._together.may_ask(self) and super()._may_ask()

    async def _until_it_may_ask(self) -> None:
        self._waits_for_slots = not self.asked.on_their_way
        self._together.waiting[self] = None
        try:
            await super()._until_it_may_ask()
        finally:
            self._together.waiting.pop(self, None)
        self._waits_for_slots = False

    def go_on(self) -> int:
        """Wait no longer where it may claim more; for how many there are slots then."""
        if not self._may_ask():
            return 0
        self._together.waiting.pop(self, None)
        asyncio.Event.set(self._changed)  # nobody else is to look for that
        # It claims nothing before Redis has been told what got lost, and that may be away.
        return 0 if self.asked.lost else min(self.free(), self._at_once)

    def _holding(self) -> int:
        return self._together.holding(self)

    def _no_more_alone(self) -> Claim | None:
        return self._together.alone(self)

    def _most_bytes(self) -> int:
        # Those that share a Redis, or a node now, bring no more at once than a single one would.
        here = server_of(self.partition.redis)
        return super()._most_bytes() // sum(
            server_of(each.partition.redis) == here for each in self._together.all
        )

    def _heard(self, claimed: Claimed | None) -> None:
        self._is_away = claimed is None
        self._together.heard(self, claimed)
        # What it had reserved, or wants no more, may be others'.
        self._together.changed.set()

    async def _be_quiet(self, claimed: Claimed) -> None:
        await self._together.be_quiet(self, claimed)

    def _start_all(self, claimed: Claimed) -> None:
        """What came so late that other partitions have its slots is given back."""
        room = self._together.room(self, claimed)
        for claim, _ in claimed.jobs[room:]:
            release = Settlement(claim, "release", packed=pack(()))
            self._pipeline.ledger.post_settlement(release, partial(self._note_given_back, claim))
        super()._start_all(replace(claimed, jobs=claimed.jobs[:room]))

    def _note_given_back(self, claim: Claim, answer: Settled | Exception) -> None:
        if isinstance(answer, Exception):
            self._note_left(claim, answer)

    async def weigh_forever(self, weights: Callable[[], Mapping[str, float]]) -> None:
        """Estimate again and again what waits here, while other partitions want slots, too.

        Args:
            weights: of organizations, where that isn't 1.
        """
        while True:
            if self.is_hungry and self._together.is_contested:
                with contextlib.suppress(*REDIS_ERRORS):  # what it was is good enough
                    self.weight = await self._weigh(weights())
            await asyncio.sleep(_WEIGHED)

    async def _weigh(self, weights: Mapping[str, float]) -> float:
        redis, waiting = self.partition.redis, self.partition.names.waiting
        number = float(max(1, await redis.execute_command("HLEN", waiting)))
        if not weights:
            return number
        some = await redis.execute_command("HRANDFIELD", waiting, _SAMPLE) or [b""]
        found = [weights.get(each.decode(errors="replace"), 1.0) for each in some]
        return number * sum(found) / len(found)
