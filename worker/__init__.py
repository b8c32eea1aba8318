"""Runs the handlers of accepted events; what handlers are written with is found here."""

from shared.errors import HandlerError, StateError
from worker.events import Event
from worker.organization import Organization
from worker.outcomes import Reject, Retry
from worker.registry import Handlers
from worker.state import State

__all__ = [
    "Event",
    "HandlerError",
    "Handlers",
    "Organization",
    "Reject",
    "Retry",
    "State",
    "StateError",
]
