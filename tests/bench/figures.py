"""What is made of measured numbers: the middle, the spread, percentiles, ratios."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure over several rounds.

    Attributes:
        middle: the median.
        low: the lowest round.
        high: the highest round.
    """

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Self:
        """The figure of at least one round."""
        return cls(median(rounds), min(rounds), max(rounds))

    @classmethod
    def ratio(cls, over: Sequence[float], under: Sequence[float]) -> Self:
        """One over the other, round by round: what slows a whole round down cancels out."""
        return cls.of([one / other for one, other in zip(over, under, strict=True)])


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all, between 0 and 1, doesn't exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Of many times what is worth keeping: a few percentiles, to the microsecond."""
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
    return {name: round(percentile(values, share), 6) for name, share in shares.items()}


def short(value: float) -> str:
    """A number with three digits that count: 0.0123, 1.23, 12.3, 1,230."""
    if value == 0:
        return "0"
    rounded = round(value, 2 - math.floor(math.log10(abs(value))))
    digits = max(0, 2 - math.floor(math.log10(abs(rounded))))  # 9.999 has become 10.0
    return f"{rounded:,.{digits}f}"


def spread(figure: Figure) -> str:
    """The middle, and how far the rounds were apart."""
    if figure.low == figure.high:
        return short(figure.middle)
    return f"{short(figure.middle)} ({short(figure.low)} to {short(figure.high)})"
