"""The endpoints file: what it may say, and what it is told when it is wrong."""

import base64
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from shared.endpoints.endpoint import Endpoints, Rate
from shared.endpoints.union import parse_endpoints
from shared.errors import SettingsError
from shared.sellfern import signature
from shared.sellfern.scheme import SELLFERN, STANDARD_WEBHOOKS

SECRET = "whsec_topsecret"
ACME = f"""[[endpoint]]
id = "acme"
organization_id = "org_1"
secrets = ["{SECRET}"]
"""
BETA = ACME.replace("acme", "beta")


def parse(text: str, **files: str) -> Endpoints:
    def read(path: Path) -> str:
        if path.name not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[path.name]

    return parse_endpoints(
        text,
        path=Path("conf/endpoints.toml"),
        environ={
            "ACME_SECRET": "whsec_env\n",
            "BLANKS": "\ufeff\twhsec_blanks\r\n",
            "EMPTY": "",
            "TEMPLATE": "{{ acme }}",
        },
        read_secret_file=read,
    )


def error(text: str, **files: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text, **files)
    message = str(caught.value)
    assert message.startswith("ENDPOINTS_FILE (conf/endpoints.toml)")
    assert SECRET not in message
    return message.removeprefix("ENDPOINTS_FILE (conf/endpoints.toml)").lstrip(": ")


def test_what_is_left_out_has_its_default() -> None:
    endpoint = parse(ACME)["acme"]
    assert endpoint.organization_id == "org_1"
    assert endpoint.scheme is SELLFERN
    assert (endpoint.weight, endpoint.concurrency, dict(endpoint.settings)) == (1.0, None, {})
    assert endpoint.active_secrets(0) == [SECRET.encode()]


@pytest.mark.parametrize(("written", "read"), [("123", "123"), ("-0", "0"), ("0x7b", "123")])
def test_an_organization_may_be_written_as_a_whole_number(written: str, read: str) -> None:
    endpoints = parse(ACME.replace('"org_1"', written) + BETA.replace('"org_1"', f'"{read}"'))
    assert [each.organization_id for each in endpoints.values()] == [read, read]
    assert list(endpoints.organizations) == [read]


@pytest.mark.parametrize("written", ["true", "1.0", "1e2", "9" * 65, "9" * 300])
def test_nothing_else_is_an_organization(written: str) -> None:
    assert error(ACME.replace('"org_1"', written)).startswith("line 3: expected organization_id")


def test_a_number_that_python_refuses_to_read_is_an_error_as_any_other() -> None:
    assert "a number of too many digits" in error(ACME.replace('"org_1"', "9" * 5000))


def test_all_that_can_be_said_is_kept() -> None:
    endpoints = parse(
        ACME.replace(SECRET, "whsec_c2VjcmV0")
        + 'scheme = "standard-webhooks"\nweight = 2\nconcurrency = 1\n'
        '[endpoint.settings]\nerp = "https://erp.example"\n'
    )
    endpoint = endpoints["acme"]
    assert endpoint.scheme is STANDARD_WEBHOOKS
    assert (endpoint.weight, endpoint.concurrency) == (2.0, 1)
    assert endpoint.settings == {"erp": "https://erp.example"}
    profile = endpoints.organizations["org_1"]
    assert (profile.id, profile.weight, profile.concurrency) == ("org_1", 2.0, 1)
    assert profile.settings == {"erp": "https://erp.example"}


def test_a_public_key_is_a_secret_of_standard_webhooks_and_a_private_one_is_not() -> None:
    public = "whpk_" + base64.b64encode(bytes(range(32))).decode()
    text = ACME.replace(SECRET, public) + 'scheme = "standard-webhooks"\n'
    assert parse(text)["acme"].active_secrets(0) == [public.encode()]
    for wrong in (public.replace("whpk_", "whsk_"), public[:-4]):
        message = error(text.replace(public, wrong))
        assert "one without a key in it" in message
        assert wrong not in message
    assert "a secret that isn't empty, got nothing" in error(text.replace(public, "whpk_"))


def test_githubs_published_example_verifies_by_a_described_hmac() -> None:
    text = ACME.replace(SECRET, "It's a Secret to Everybody")
    text += '[endpoint.scheme]\nheader = "X-Hub-Signature-256"\nprefix = "sha256="\n'
    endpoint = parse(text)["acme"]
    digest = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    headers = CIMultiDict({"x-hub-signature-256": f"sha256={digest}"})
    signature.verify(endpoint.scheme, b"Hello, World!", headers, endpoint.active_secrets(0), 0)


def test_secrets_come_from_the_file_the_environment_and_other_files() -> None:
    text = ACME.replace(
        f'["{SECRET}"]',
        '["a", { value = "b" }, { env = "ACME_SECRET" }, { file = "secret.txt" }]',
    )
    endpoint = parse(text, **{"secret.txt": "whsec_file\n"})["acme"]
    assert endpoint.active_secrets(0) == [b"a", b"b", b"whsec_env", b"whsec_file"]


def test_a_secret_file_is_looked_for_beside_the_endpoints_file() -> None:
    seen = []

    def read(path: Path) -> str:
        seen.append(path)
        return "x"

    text = ACME.replace(f'"{SECRET}"', '{ file = "a/b" }, { file = "/run/c" }')
    parse_endpoints(text, path=Path("/etc/e.toml"), environ={}, read_secret_file=read)
    assert seen == [Path("/etc/a/b"), Path("/run/c")]


def test_a_secret_file_is_read_as_utf_8_text(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("whsec_ü\n", encoding="utf-8")
    text = ACME.replace(f'"{SECRET}"', '{ file = "secret" }')
    endpoints = parse_endpoints(text, path=tmp_path / "endpoints.toml", environ={})
    assert endpoints["acme"].active_secrets(0) == ["whsec_ü".encode()]


def test_a_secret_works_until_its_moment_and_not_after() -> None:
    text = ACME.replace(
        f'"{SECRET}"', '"new", { value = "old", until = 2026-12-01T01:00:00+01:00 }'
    )
    endpoint = parse(text)["acme"]
    moment = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert endpoint.active_secrets(moment - 0.001) == [b"new", b"old"]
    assert endpoint.active_secrets(moment) == [b"new"]


def test_no_secret_shows_in_a_repr() -> None:
    assert SECRET not in repr(parse(ACME)["acme"])


def test_endpoints_of_one_organization_are_one_profile() -> None:
    endpoints = parse(
        ACME
        + "weight = 3\n[endpoint.settings]\na = 1\nb = 2\n"
        + BETA
        + "concurrency = 4\n[endpoint.settings]\nb = 2\nc = 3\n"
    )
    profile = endpoints.organizations["org_1"]
    assert (profile.weight, profile.concurrency) == (3.0, 4)
    assert profile.settings == {"a": 1, "b": 2, "c": 3}
    assert {endpoint.weight for endpoint in endpoints.values()} == {3.0}
    assert {endpoint.concurrency for endpoint in endpoints.values()} == {4}
    assert endpoints["acme"].settings == {"a": 1, "b": 2}


def test_endpoints_are_a_mapping_in_the_order_of_the_file() -> None:
    endpoints = parse(BETA + ACME)
    assert list(endpoints) == ["beta", "acme"]
    assert len(endpoints) == 2
    assert endpoints.get("nobody") is None


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("weight = 0", "line 5: expected weight to be a number from 0.01 to 100, got 0"),
        ("weight = 100.1", "line 5: expected weight to be a number from 0.01 to 100, got 100.1"),
        ("weight = nan", "line 5: expected weight to be a number from 0.01 to 100, got nan"),
        ("weight = true", "line 5: expected weight to be a number from 0.01 to 100, got True"),
        ("weight = '1'", "line 5: expected weight to be a number from 0.01 to 100, got '1'"),
        ("concurrency = 0", "line 5: expected concurrency to be a whole number from 1, got 0"),
        (
            "concurrency = true",
            "line 5: expected concurrency to be a whole number from 1, got True",
        ),
        ("concurrency = 1.5", "line 5: expected concurrency to be a whole number from 1, got 1.5"),
        ("settings = 1", "line 5: expected settings to be a table, got a int"),
        *(
            (
                f"rate = {rate}",
                (
                    "line 5: expected rate to be starts in a second, a minute or an hour, "
                    f"such as 5/s, 300/m or 20/h, got {got}"
                ),
            )
            for rate, got in {
                '"5"': "'5'",
                '"0/s"': "'0/s'",
                '"5/d"': "'5/d'",
                '"-1/s"': "'-1/s'",
                '"10001/s"': "'10001/s'",
                '"0.001/h"': "'0.001/h'",
                "5": "a int",
                "true": "a flag",
            }.items()
        ),
        (
            "burst = 3",
            """line 5: expected burst to be a rate beside it, such as rate = "5/s", got 3""",
        ),
        ('rate = "5/s"\nburst = 0', "line 6: expected burst to be a whole number from 1, got 0"),
        (
            "scheme = 'selfern'",
            (
                "line 5: expected scheme to be one of sellfern, standard-webhooks, timestamped, "
                "or a table that describes an HMAC, got 'selfern'; did you mean 'sellfern'?"
            ),
        ),
        (
            "scheme = 1",
            (
                "line 5: expected scheme to be one of sellfern, standard-webhooks, timestamped, "
                "or a table that describes an HMAC, got a int"
            ),
        ),
        (
            "wieght = 1",
            (
                "line 5: expected one of the keys id, organization_id, secrets, scheme, weight, "
                "concurrency, max_bytes, rate, burst, settings, "
                "got 'wieght'; did you mean 'weight'?"
            ),
        ),
        (
            "scheme = { header = 'a b' }",
            (
                "line 5: expected scheme to be a table that describes an HMAC, "
                "got 'header': expected the name of a header, got 'a b'"
            ),
        ),
        ("a =", "line 5: expected valid TOML, got a mistake: Invalid value"),
        ("[[endpoint]]", None),
        (
            "[endpoints]",
            (
                "line 5: expected only [[endpoint]] tables, got the key 'endpoints'; "
                "did you mean 'endpoint'?"
            ),
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_line(added: str, message: str | None) -> None:
    found = error(ACME + added)
    assert message is None or found == message


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ("[]", "expected secrets to be a list of 1 to 16 secrets, got 0"),
        (f"{['x'] * 17}", "expected secrets to be a list of 1 to 16 secrets, got 17"),
        (f'"{SECRET}"', "expected secrets to be a list of secrets, got a text"),
        ("[1]", "expected secrets to be texts or tables, got a int"),
        ('[""]', "expected secrets to be a secret that isn't empty, got nothing"),
        ("[{}]", "expected secrets to be tables with one of value, env, file, got none of them"),
        (
            f'[{{ value = "{SECRET}", env = "X" }}]',
            "expected secrets to be tables with one of value, env, file, got value and env",
        ),
        ("[{ value = [] }]", "expected secrets to be tables whose value is a text, got a list"),
        (
            '[{ env = "NOBODY" }]',
            (
                "expected secrets to be a secret that isn't empty, "
                "got nothing in the environment variable 'NOBODY'"
            ),
        ),
        (
            '[{ env = "EMPTY" }]',
            (
                "expected secrets to be a secret that isn't empty, "
                "got nothing in the environment variable 'EMPTY'"
            ),
        ),
        (
            f'[{{ env = "{SECRET}" }}]',
            (
                "expected secrets to be a secret that isn't empty, got nothing in the environment "
                "variable something that looks like a secret"
            ),
        ),
        (
            '[{ file = "gone" }]',
            (
                "expected secrets to be a secret in a readable file, "
                "got 'gone' (No such file or directory)"
            ),
        ),
        (
            '[{ file = "empty" }]',
            "expected secrets to be a secret that isn't empty, got nothing in the file 'empty'",
        ),
        (
            f'[{{ vlaue = "{SECRET}" }}]',
            "expected one of the keys value, env, file, until, got 'vlaue'; did you mean 'value'?",
        ),
        (
            f'[{{ value = "{SECRET}", until = 2026-12-01T00:00:00 }}]',
            (
                "expected secrets to be tables whose until is a date and time with an offset, "
                "as in 2026-12-01T00:00:00Z, got 2026-12-01T00:00:00"
            ),
        ),
        (
            f'[{{ value = "{SECRET}", until = "{SECRET}" }}]',
            (
                "expected secrets to be tables whose until is a date and time with an offset, "
                "as in 2026-12-01T00:00:00Z, got a text"
            ),
        ),
    ],
)
def test_wrong_secrets_are_refused_without_showing_one(secrets: str, message: str) -> None:
    text = ACME.replace(f'["{SECRET}"]', secrets)
    assert error(text, empty="\n") in {f"line 4: {message}", f"line 1: {message}"}


@pytest.mark.parametrize(
    ("secrets", "got"),
    [
        ('["${ACME}"]', "a template that nobody has filled in"),
        ('[{ value = "<your-secret>" }]', "a template that nobody has filled in"),
        ('[{ env = "TEMPLATE" }]', "a template that nobody has filled in in the environment varia"),
        ('[{ file = "quoted" }]', "one in quotes in the file 'quoted'"),
        ('[{ file = "lines" }]', "several lines in the file 'lines'"),
        ('[{ file = "named" }]', "NAME=VALUE in the file 'named'"),
        ('[{ file = "blank" }]', "nothing in the file 'blank'"),
        ('["whsec_to p"]', "one with them inside"),
    ],
)
def test_what_only_looks_like_a_secret_is_refused_with_its_line_and_source(
    secrets: str, got: str
) -> None:
    files = {
        "quoted": f'"{SECRET}"\n',
        "lines": f"# acme\n{SECRET}\n",
        "named": f"ACME_SECRET={SECRET}\n",
        "blank": " \ufeff\n\t",
    }
    found = error(ACME.replace(f'["{SECRET}"]', secrets), **files)
    assert found.startswith("line 4: expected secrets to be ")
    assert f", got {got}" in found


def test_what_stands_around_a_secret_is_no_part_of_it() -> None:
    text = ACME.replace(f'"{SECRET}"', f'" {SECRET} ", {{ file = "a" }}, {{ env = "BLANKS" }}')
    endpoint = parse(text, a="\ufeffwhsec_file \r\n")["acme"]
    assert endpoint.active_secrets(0) == [SECRET.encode(), b"whsec_file", b"whsec_blanks"]


def test_a_made_up_secret_may_have_white_space_and_quotes_inside() -> None:
    text = ACME.replace(SECRET, "It's ours")
    assert error(text) == (
        "line 4: expected secrets to be a secret without white space and quotes, "
        "got one with them inside"
    )
    endpoint = parse(text + 'scheme = { header = "X-Hub-Signature-256" }\n')["acme"]
    assert endpoint.active_secrets(0) == [b"It's ours"]


def test_a_secret_without_a_key_for_its_scheme_is_refused() -> None:
    assert error(ACME + 'scheme = "standard-webhooks"\n') == (
        "line 4: expected secrets to be base64 secrets, as the scheme standard-webhooks needs "
        "them, got one without a key in it"
    )


@pytest.mark.parametrize(
    "scheme", ["", 'scheme = "timestamped"', 'scheme = { header = "X-Hub-Signature-256" }']
)
def test_a_public_key_is_no_key_of_an_hmac(scheme: str) -> None:
    """Everybody may know it, so everybody could sign."""
    text = f"""[[endpoint]]
id = "acme"
organization_id = "org_1"
secrets = ["whpk_bA32lMP8Ga00WllLiKnD4G6lPV7orKEjBTz40H83/ns="]
{scheme}"""
    message = error(text)
    assert "line 4: expected secrets to be a secret, as the scheme" in message
    assert message.endswith("got a public key (whpk_…)")


def test_a_secret_file_that_is_no_text_is_refused() -> None:
    def read(path: Path) -> str:
        return b"\xff".decode()

    text = ACME.replace(f'"{SECRET}"', '{ file = "binary" }')
    with pytest.raises(SettingsError, match=r"got 'binary' \(not UTF-8\)"):
        parse_endpoints(text, path=Path("e"), environ={}, read_secret_file=read)


@pytest.mark.parametrize(
    ("key", "value", "got"),
    [
        ("id", '"a b"', "'a b'"),
        ("id", f'"{"a" * 65}"', None),
        ("id", "1", "a int"),
        ("organization_id", '"org:1"', "'org:1'"),
        ("organization_id", '"whsec_/+="', "something that looks like a secret"),
        ("organization_id", '""', "''"),
    ],
)
def test_ids_are_names_of_letters_digits_dash_and_underscore(
    key: str, value: str, got: str | None
) -> None:
    line = {"id": 2, "organization_id": 3}[key]
    old = {"id": '"acme"', "organization_id": '"org_1"'}[key]
    found = error(ACME.replace(old, value))
    expected = f"line {line}: expected {key} to be 1 to 64 characters of A-Z a-z 0-9 _ -, got "
    assert found.startswith(expected)
    assert got is None or found == expected + got


@pytest.mark.parametrize("key", ["id", "organization_id", "secrets"])
def test_what_must_be_there_is_missed(key: str) -> None:
    text = "\n".join(line for line in ACME.splitlines() if not line.startswith(f"{key} ="))
    assert error(text).startswith(f"line 1: expected {key} to be ")
    assert error(text).endswith("got nothing")


def test_two_endpoints_of_one_id_are_refused() -> None:
    assert error(ACME + ACME) == (
        "line 6: expected id to be an id that no other endpoint has, got 'acme'"
    )


def test_one_secret_for_two_organizations_is_refused() -> None:
    assert error(ACME + BETA.replace("org_1", "org_2")) == (
        "line 8: expected secrets to be secrets of this organization alone, "
        "got one of organization org_1 as well"
    )


def test_endpoints_that_contradict_each_other_are_refused() -> None:
    assert error(ACME + "weight = 2\n" + BETA + "weight = 3\n") == (
        "line 10: expected weight to be 2.0 as in another endpoint of organization org_1, got 3.0"
    )
    assert error(ACME + "concurrency = 2\n" + BETA + "concurrency = 3\n").startswith("line 10")
    settings = "[endpoint.settings]\ntoken = '{}'\n"
    assert error(ACME + settings.format(SECRET) + BETA + settings.format("other")) == (
        "line 11: expected settings to be the same 'token' as in the other endpoints of its "
        "organization, got another value"
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "endpoint = 1", "endpoint = []"])
def test_a_file_without_endpoints_is_refused(text: str) -> None:
    assert error(text) == "expected at least one [[endpoint]] table, got none"


def test_an_endpoint_that_is_no_table_is_refused() -> None:
    assert error("endpoint = [1]") == "expected an [[endpoint]] table, got a int"


def test_brackets_without_end_are_refused() -> None:
    assert error("a = " + "[" * 20_000) == "expected valid TOML, got brackets nested too deeply"


@given(st.text(alphabet=st.sampled_from("[]{}=\"'\n #.,aeidnpotsrc_1"), max_size=80))
def test_any_text_is_endpoints_or_a_settings_error(text: str) -> None:
    try:
        parse(ACME + text)
    except SettingsError as exc:
        assert SECRET not in str(exc)  # noqa: PT017  # only some texts raise


def test_a_burst_may_be_any_number() -> None:
    assert Rate.parse("60/m", 3).credit == 2000
    assert Rate.parse("60/m", 10**400).credit > 1e11
