"""Facts about the knobs' ranges."""

from typing import Any

import pytest

from deploy.sellfern.settings import SimulatorSettings
from shared.errors import SettingsError


def test_the_defaults_are_within_their_ranges() -> None:
    assert SimulatorSettings().rate == 0


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ("rate", -1.0, "at least 0"),
        ("rate", float("nan"), "at least 0"),
        ("rate", float("inf"), "at least 0"),
        ("latency", -0.1, "at least 0"),
        ("duplicates", 1.1, "a share from 0 to 1"),
        ("disorder", float("nan"), "a share from 0 to 1"),
        ("bad_signatures", -0.1, "a share from 0 to 1"),
        ("attempts", 0, "a whole number of at least 1"),
        ("events", 0, "a whole number of at least 1"),
        ("rate_limit", 0, "a whole number of at least 1"),
        ("timeout", 0.0, "more than 0"),
        ("backoff", float("inf"), "more than 0"),
    ],
)
def test_a_knob_out_of_its_range_is_named(knob: str, value: Any, expected: str) -> None:
    with pytest.raises(SettingsError) as refused:
        SimulatorSettings(**{knob: value})
    assert (refused.value.setting, refused.value.expected) == (knob, expected)


@pytest.mark.parametrize("seed", [-1, 0, 2**80])
def test_any_seed_is_right(seed: int) -> None:
    assert SimulatorSettings(seed=seed).seed == seed
