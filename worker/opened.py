"""What a worker's lifespans have opened that wants to be looked after while it runs."""

from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Final, Protocol, TypeAlias

from shared.program.findings import Finding

Known: TypeAlias = tuple[str, str]
"""An event, by its organization and its own id."""


class Kept(Protocol):
    """A database with an inbox."""

    async def check(self) -> list[Finding]:
        """What of it isn't as it has to be, and what is."""
        ...

    async def prune(
        self,
        are_over: Callable[[Sequence[Known]], Awaitable[Sequence[bool]]],
        *,
        older_than: float,
    ) -> int:
        """Remove rows of events that can't come again; how many."""
        ...


OPENED: Final[ContextVar[list[Kept] | None]] = ContextVar("sellfern_opened", default=None)
"""Where what is opened notes itself; ``None`` where nobody looks after it, as in a test."""
