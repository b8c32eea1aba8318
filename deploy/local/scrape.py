"""Reads the metrics that programs show on their admin ports."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

_LABEL: Final = "outcome"


async def outcomes(session: ClientSession, port: int, metric: str) -> Counter[str]:
    """How often each outcome was counted by a metric of the program with this admin port.

    Raises:
        aiohttp.ClientError: it doesn't answer.
    """
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        response.raise_for_status()
        return parse(await response.text(), metric)


def parse(text: str, metric: str) -> Counter[str]:
    """The same from the text of an answer."""
    counts: Counter[str] = Counter()
    for family in text_string_to_metric_families(text):
        if family.name == metric:
            for sample in family.samples:
                if sample.name == f"{metric}_total":  # beside it may stand when it was created
                    counts[sample.labels[_LABEL]] += round(sample.value)
    return counts


def total(counts: Iterable[Counter[str]]) -> Counter[str]:
    """The counts of several programs together."""
    return sum(counts, Counter())
