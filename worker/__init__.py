"""Runs the handlers of accepted events; what handlers are written with is found here."""

# ruff: noqa: E402  # the imports come after what makes sure of them

import runpy
from pathlib import Path

# By their places: nothing of `shared` can be imported before it is sure to be ours.
_shared = Path(__file__).parents[1] / "shared"
runpy.run_path(str(_shared / "first_process.py"))["end_on_sigterm"]("worker")
runpy.run_path(str(_shared / "shadowing.py"))["refuse_shadows"]("worker")

from shared.errors import HandlerError, StateError
from shared.sellfern.identifier import Id
from shared.settings.secret import Secret
from worker.events import Event, Organization
from worker.failures import Failure
from worker.lifespans import Settings
from worker.outcomes import Reject, Retry, Throttled
from worker.registry import Handlers
from worker.state import State

__all__ = [
    "Event",
    "Failure",
    "HandlerError",
    "Handlers",
    "Id",
    "Organization",
    "Reject",
    "Retry",
    "Secret",
    "Settings",
    "State",
    "StateError",
    "Throttled",
]
