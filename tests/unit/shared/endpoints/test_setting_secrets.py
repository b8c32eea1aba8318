"""Secrets in settings: got where they stand, and shown nowhere."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from shared.endpoints.endpoint import MissingSecret, OrganizationProfile
from shared.endpoints.kept_secrets import KEPT_SECONDS, SecretMemory, SettingSecrets
from shared.endpoints.secret_source import SecretFetcher
from shared.endpoints.text import read_tables
from shared.endpoints.union import ProfileUnion, parse_endpoints
from shared.errors import SettingsError
from shared.files.background import Pace
from shared.settings.secret import Secret

PACE = Pace(rest=0)
TABLE = '[[endpoint]]\nid = "{id}"\norganization_id = "{org}"\nsecrets = ["whsec_{org}"]\n'
TOKEN = "tok_topsecret"


def table(settings: str, name: str = "acme", organization: str = "org") -> str:
    return f"{TABLE.format(id=name, org=organization)}[endpoint.settings]\n{settings}\n"


@dataclass
class Place:
    """Some secret files, and a clock."""

    files: dict[str, str] = field(default_factory=dict)
    now: float = 1e9

    def __post_init__(self) -> None:
        fetcher = SecretFetcher({"TOKEN": f"{TOKEN}\n"}, self._read)
        self.secrets = SettingSecrets(fetcher, SecretMemory(), clock=lambda: self.now)
        self.missing: list[MissingSecret] = []

    def _read(self, path: Path) -> str:
        if path.name not in self.files:
            raise FileNotFoundError(2, "No such file or directory")
        return self.files[path.name]

    def profiles(self, *tables: str) -> dict[str, OrganizationProfile]:
        placed = read_tables("".join(tables), Path("endpoints.toml"), pace=PACE).placed
        union = ProfileUnion()
        for draft, where in placed:
            union.add(draft, where)
        filled, self.missing = self.secrets.fill(union.profiles(), placed, PACE)
        return filled


def test_tokens_come_from_variables_and_files_wherever_they_stand_in_the_settings() -> None:
    place = Place({"token": "tok_file\n"})
    settings = place.profiles(
        table(
            'token = { env = "TOKEN" }\nurl = "https://erp.example"\n'
            'erps = [{ name = "a", key = { file = "token" } }, "plain"]\n'
            'not_one = { env = "TOKEN", more = 1 }\nnor_this = { env = 1 }'
        )
    )["org"].settings
    assert settings == {
        "token": Secret(TOKEN),
        "url": "https://erp.example",
        "erps": [{"name": "a", "key": Secret("tok_file")}, "plain"],
        "not_one": {"env": "TOKEN", "more": 1},
        "nor_this": {"env": 1},
    }
    assert place.missing == []


def test_no_repr_and_no_log_shows_one() -> None:
    settings = Place().profiles(table('token = { env = "TOKEN" }'))["org"].settings
    assert TOKEN not in f"{settings} {settings['token']}"
    with pytest.raises(TypeError):
        msgspec.json.encode(settings["token"])


def test_the_ingress_needs_none_of_them() -> None:
    text = table('token = { file = "nowhere" }')
    endpoints = parse_endpoints(text, path=Path("endpoints.toml"), environ={})
    assert "nowhere" not in repr(endpoints.organizations["org"].settings)
    assert endpoints.missing == ()


def test_two_endpoints_of_one_organization_may_name_the_same_one() -> None:
    line = 'token = { env = "TOKEN" }'
    assert Place().profiles(table(line), table(line, "other"))["org"].settings["token"]
    with pytest.raises(SettingsError, match="the same 'token' as in the other endpoints"):
        Place().profiles(table(line), table('token = { env = "OTHER" }', "other"))


def test_a_lost_one_holds_for_a_day_and_then_fails_whoever_asks_for_it() -> None:
    place = Place({"token": TOKEN})
    lines = table('token = { file = "token" }'), table("a = 1", "bolt", "org_b")
    place.profiles(*lines)
    del place.files["token"]
    settings = place.profiles(*lines)["org"].settings
    assert settings["token"] == Secret(TOKEN)
    (missing,) = place.missing
    assert (missing.whose, missing.cause, missing.kept_until) == (
        "organization org",
        "unreadable",
        place.now + KEPT_SECONDS,
    )
    place.now += KEPT_SECONDS
    profiles = place.profiles(*lines)
    assert profiles["org_b"].settings == {"a": 1}
    lost = profiles["org"].settings["token"]
    assert isinstance(lost, Secret)
    why = r"line 5: expected settings to be a secret in a readable file"
    with pytest.raises(SettingsError, match=why):
        lost.reveal()
    with pytest.raises(SettingsError, match=why):
        _ = lost.raw


def test_a_template_is_no_token() -> None:
    place = Place({"token": "${TOKEN}"})
    place.profiles(table('token = { file = "token" }'))
    assert place.missing[0].cause == "unusable"
    assert "a template that nobody has filled in in the file 'token'" in str(place.missing[0].error)
