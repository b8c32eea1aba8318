"""Facts about the simulator before it is open."""

import time

import pytest

from deploy.sellfern.api_key import ApiKeys, parse_api_key
from deploy.sellfern.settings import SimulatorSettings
from deploy.sellfern.vendor import Sellfern
from shared.errors import SettingsError


def sellfern(*keys: str) -> Sellfern:
    return Sellfern(ApiKeys(map(parse_api_key, keys)), SimulatorSettings(), time.time)


async def test_nothing_is_delivered_before_it_is_open() -> None:
    with pytest.raises(RuntimeError, match="not open"):
        await sellfern("sk_a:org_a").publish("order.updated")


@pytest.mark.parametrize(
    ("event_type", "organization", "setting"),
    [
        ("order.archived", "org_a", "type"),
        ("order.updated", None, "organization"),
        ("order.updated", "org_c", "organization"),
    ],
)
async def test_an_unknown_event_or_organization_is_named(
    event_type: str, organization: str | None, setting: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        await sellfern("sk_a:org_a", "sk_b:org_b").publish(event_type, organization)
    assert refused.value.setting == setting
