"""What is wrong with a part of the system, in a form that a probe and a person can read."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a program is not ready: a stable code and a sentence."""

    code: str
    message: str
