"""The organization as a handler sees it: the scope of everything that it may touch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from structlog.typing import FilteringBoundLogger

from worker.state import State


@dataclass(frozen=True, slots=True)
class Organization:
    """One organization, for the time of one attempt.

    Attributes:
        id: the organization that the endpoint's secret proves (``org_…``).
        state: its values in Redis; no key of another organization can be named.
        settings: the ``[endpoint.settings]`` table of the endpoints file.
        log: a logger bound to the organization and the event.
    """

    id: str
    state: State
    log: FilteringBoundLogger
    settings: Mapping[str, object] = field(default_factory=dict)
