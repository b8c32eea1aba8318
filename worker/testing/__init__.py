"""Tests of handlers: an event's real path, without Redis, settings or a process."""

from worker.testing.results import (
    Dead,
    DeliveryError,
    Duplicate,
    Failed,
    Handled,
    Held,
    Ignored,
    NoHandler,
    Outcome,
    Rejected,
    Released,
    Result,
    Retried,
    Throttled,
)
from worker.testing.sandbox import Sandbox, deliver

__all__ = [
    "Dead",
    "DeliveryError",
    "Duplicate",
    "Failed",
    "Handled",
    "Held",
    "Ignored",
    "NoHandler",
    "Outcome",
    "Rejected",
    "Released",
    "Result",
    "Retried",
    "Sandbox",
    "Throttled",
    "deliver",
]
