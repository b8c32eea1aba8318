"""A clock that a test moves by hand."""


class HandClock:
    """Stands still at noon of 2026-01-31, UTC, until it is moved."""

    def __init__(self) -> None:
        self.now = 1_769_860_800.0

    def __call__(self) -> float:
        return self.now
