"""Reads the metrics that programs show on their admin ports."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

_LABEL: Final = "outcome"
_DEPTH: Final = "sellfern_queue_depth"
_OLDEST: Final = "sellfern_oldest_waiting_seconds"


@dataclass(frozen=True, slots=True)
class Queue:
    """The whole queue, as an ingress's gauges show it.

    Attributes:
        depths: unfinished events by where they are.
        oldest_seconds: age of the oldest of them.
    """

    depths: Mapping[str, float]
    oldest_seconds: float


async def outcomes(session: ClientSession, port: int, metric: str) -> Counter[str]:
    """How often each outcome was counted by a metric of the program with this admin port.

    Raises:
        aiohttp.ClientError: it doesn't answer.
    """
    return parse(await _metrics(session, port), metric)


async def queue(session: ClientSession, port: int) -> Queue | None:
    """The queue, as the ingress with this admin port knows it; None while it doesn't.

    Raises:
        aiohttp.ClientError: it doesn't answer.
    """
    return parse_queue(await _metrics(session, port))


async def _metrics(session: ClientSession, port: int) -> str:
    async with session.get(f"http://127.0.0.1:{port}/metrics") as response:
        response.raise_for_status()
        return await response.text()


def parse_queue(text: str) -> Queue | None:
    """The same from the text of an answer."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    if _DEPTH not in families or _OLDEST not in families:
        return None
    depths = {each.labels["state"]: each.value for each in families[_DEPTH].samples}
    (oldest,) = families[_OLDEST].samples
    return Queue(depths, oldest.value)


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
