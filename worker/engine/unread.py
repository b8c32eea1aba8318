"""Claims whose answer nobody has read: they must not make their jobs suspects."""

from dataclasses import dataclass

from worker.pipeline.transitions import Transitions, fresh_base


@dataclass(slots=True)
class Unread:
    """The one claim of a worker that is on its way, or whose answer got lost.

    Attributes:
        transitions: the scripts.
        lease: of the claims, in seconds.
        base: of the tokens of that claim; ``None`` while there is none. Another thread may read it.
    """

    transitions: Transitions
    lease: float
    base: str | None = None

    async def begin(self) -> str:
        """The base of the next claim, once the one before is known to be unread.

        Raises: what redis-py raises; then nothing has begun.
        """
        await self.disown()
        self.base = fresh_base()
        return self.base

    def read(self) -> None:
        """The answer is there."""
        self.base = None

    async def disown(self) -> None:
        """Tell Redis, if there is such a claim; raises as ``begin``."""
        if self.base is not None:
            await self.transitions.disown(self.base, lease=self.lease)
            self.base = None
