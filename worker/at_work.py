"""What a worker is at: as it says so in Redis, and as operators read it."""

import msgspec


class Doing(msgspec.Struct, frozen=True, omit_defaults=True):
    """A handler that has run for a while; or whatever keeps a worker's loop from turning.

    Attributes:
        job: of the event; empty where nobody knows whose doing it is.
        since: seconds since the epoch.
        handler: its name.
        organization: whose event it is.
        event_id: Sellfern's.
        type: of the event.
        state: ``running``, ``cancelled`` since it took too long or the worker ends, ``stuck`` where
            it went on so that it is no longer waited for, ``blocking`` what keeps the loop.
        stack: where it is, the innermost call last; empty where nobody has looked.
        worker: by the name of which it is told; empty in Redis, where that stands beside it.
    """

    job: str
    since: float
    handler: str = ""
    organization: str = ""
    event_id: str = ""
    type: str = ""
    state: str = "running"
    stack: str = ""
    worker: str = ""


class AtWork(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker is at, in one partition.

    Attributes:
        at: when it said so, seconds since the epoch.
        doing: what takes long, the longest first.
        more: how many others take long.
        seen: the same as ``at``, by Redis's clock; 0 where it wasn't told.
    """

    at: float = 0.0
    doing: list[Doing] = []
    more: int = 0
    seen: float = 0.0
