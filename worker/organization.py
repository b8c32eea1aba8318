"""The organization as a handler sees it: the scope of everything that it may touch."""

from collections.abc import Callable, Mapping

import msgspec

from shared.observe.structlog_alone import FilteringBoundLogger
from worker.state import State


class Organization(msgspec.Struct, frozen=True):
    """One organization, for the time of one attempt.

    Attributes:
        id: the organization that the endpoint's secret proves (``org_…``).
        state: its values in Redis; no key of another organization can be named.
        settings: the ``[endpoint.settings]`` table of the endpoints file.
        logger: makes ``log``.
    """

    id: str
    state: State
    logger: Callable[[], FilteringBoundLogger]
    settings: Mapping[str, object] = msgspec.field(default_factory=dict)

    @property
    def log(self) -> FilteringBoundLogger:
        """A logger bound to the organization and the event; most handlers need none."""
        return self.logger()
