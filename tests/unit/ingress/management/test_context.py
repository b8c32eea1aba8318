"""Whose the API key is, as somebody says it."""

import pytest

from ingress.management.context import key_organization
from ingress.management.settings import ManagementSettings
from shared.errors import SettingsError
from tests.ingress_support import endpoints


@pytest.mark.parametrize(
    ("given", "organization"),
    [("org_acme", "org_acme"), ("acme", "org_acme"), ("org_new", "org_new")],
)
def test_an_endpoint_stands_for_its_organization_and_a_new_one_for_itself(
    given: str, organization: str
) -> None:
    settings = ManagementSettings.from_environ({})
    assert key_organization(given, endpoints(), settings) == organization


def test_several_organizations_ask_for_one() -> None:
    with pytest.raises(SettingsError, match="got nothing, and 2 organizations in "):
        key_organization(None, endpoints(), ManagementSettings.from_environ({}))
