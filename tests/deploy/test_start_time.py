"""Facts about how long a large Redis takes to start: what is deployed waits for as long."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
SIZING: Final = (DEPLOY / "sizing.md").read_text()
_UNITS: Final = {"s": 1, "min": 60}


def start_times() -> dict[float, tuple[float, float]]:
    """The page's: seconds, compacted and not, by ``maxmemory`` in GB."""
    section = SIZING.split("\n## Start\n")[1].split("\n## ")[0]
    rows = re.findall(
        r"^\| ([\d.]+) GB \| ([\d.]+) (s|min) \| ([\d.]+) (s|min) \|$", section, re.MULTILINE
    )
    return {
        float(size): (float(least) * _UNITS[one], float(most) * _UNITS[other])
        for size, least, one, most, other in rows
    }


def waits_in_kubernetes() -> float:
    """Seconds that the start may take there."""
    objects: list[Any] = [*yaml.safe_load_all((DEPLOY / "redis" / "kubernetes.yaml").read_text())]
    (stateful,) = (each for each in objects if each["kind"] == "StatefulSet")
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    return float(probe["periodSeconds"] * probe["failureThreshold"])


def waits_in_compose() -> float:
    """The same."""
    services: Any = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    period: str = services["redis"]["healthcheck"]["start_period"]
    return float(period.removesuffix("m")) * 60


def test_the_figures_are_those_of_the_rate() -> None:
    (rate,) = re.findall(r"\*\*(\d+) s a GiB\*\*", SIZING)
    for size, (least, most) in start_times().items():
        seconds = float(rate) * size * 1e9 / 2**30
        assert least == pytest.approx(seconds, rel=0.03)
        assert most == pytest.approx(2 * seconds, rel=0.03)


def test_every_size_that_the_page_names_has_its_start_time() -> None:
    table = SIZING.split("\n## Memory\n")[1].split("\n## ")[0]
    sizes = re.findall(r"\| ([\d.]+) GB \| [\d.]+ GB \|$", table, re.MULTILINE)
    assert {float(each) for each in sizes} == start_times().keys()


def test_what_is_deployed_waits_for_the_largest() -> None:
    longest = max(most for _, most in start_times().values())
    assert waits_in_kubernetes() > longest
    assert waits_in_compose() > longest
