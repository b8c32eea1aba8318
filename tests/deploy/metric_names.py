"""Which of the metrics that an expression names the programs show."""

import re
from typing import Any, Final

from prometheus_client.core import Metric

from ingress.http.secret_use import ENOUGH, WrongSignatures
from shared.observe import metrics
from shared.queue import gauges, held_bytes
from shared.queue.depths import Depths
from shared.queue.due import Due, Longest
from shared.queue.held_bytes import RedisMemory
from tests.ingress_support import Known, endpoints

_NAME: Final = re.compile(r"\bsellfern_[a-z0-9_]+")
_SUFFIXES: Final = {
    "counter": ("_total",),
    "histogram": ("_bucket", "_count", "_sum"),
    "gauge": ("",),
}
_READING: Final = gauges.Reading(
    Depths(0.0, 0, 0, 0, 0, 0, None),
    breakers=0,
    workers=0,
    slots=0,
    memory=RedisMemory(),
    undivided=0,
    due=Due(1, {"0": Longest(gauges.LATE, "org_a")}),
)
_SHARES: Final = held_bytes.Shares(
    reasons={"rejected": 1},
    organizations={"org_a": (0, 0)},
    held={"org_a": {"waiting": 0}},
)


def families() -> list[Metric]:
    """Every metric of both programs."""
    return [
        *metrics.REGISTRY.collect(),
        *gauges._families(_READING),
        gauges.family_of_redis(is_up=True),
        metrics.family_of_partitions(2, ()),
        *WrongSignatures(Known(endpoints()), {"acme": ENOUGH}, 1).collect(),
        *gauges._families_of_shares(_SHARES, lambda _: 1),
    ]


def shown() -> dict[str, set[str]]:
    """Every series' name, with the labels that it may bear."""
    # The library doesn't say the labels of a metric that has no series yet.
    collectors: list[Any] = [*metrics.REGISTRY._collector_to_names]
    labels = {
        collector._name: set(collector._labelnames)
        for collector in collectors
        if hasattr(collector, "_labelnames")
    }
    return {
        family.name + suffix: {
            *labels.get(family.name, ()),
            *(name for sample in family.samples for name in sample.labels),
            *(("le",) if suffix == "_bucket" else ()),
        }
        for family in families()
        for suffix in _SUFFIXES[family.type]
    }


def unknown_metrics(expression: str) -> set[str]:
    """The metrics of ours in it that no program shows."""
    return set(_NAME.findall(expression)) - shown().keys()


def unknown_labels(expression: str) -> set[str]:
    """The labels in its selectors and groupings that no metric in it bears."""
    known = set[str]().union(*(shown().get(name, set()) for name in _NAME.findall(expression)))
    used = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        used |= {label.strip() for label in group.split(",")}
    return used - known - {"job", "instance"}
