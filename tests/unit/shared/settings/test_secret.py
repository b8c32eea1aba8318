"""What is a secret, and what only looks like one."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SecretDefect
from shared.settings.secret import VENDOR_SECRET, secret_in

ROOT = Path(__file__).parents[4]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_"
KEYS = st.text(alphabet=ALPHABET, min_size=16, max_size=88).filter(
    lambda key: len(set(key)) > 1 and not key.startswith("__")  # as no random bytes ever come out
)
PADDING = st.sampled_from(["", "=", "=="])
GENUINE = st.builds(lambda key, padding: f"whsec_{key}{padding}", KEYS, PADDING)
PUBLIC = st.builds(lambda key, padding: f"whpk_{key}{padding}", KEYS, PADDING)
BARE = st.builds(lambda key, padding: key + padding, KEYS, PADDING)
"""Standard Webhooks' secrets may come without what they begin with."""
HEX = st.text(alphabet="0123456789abcdefABCDEF", min_size=32, max_size=128).filter(
    lambda key: len(set(key)) > 1
)
AROUND = st.text(alphabet=" \t\r\n\v\f\ufeff\xa0\u2028", max_size=4)
WITHIN = st.sampled_from(" \t\n\r\"'`\xa0\u2028\x00\x1b\x7f\x85\u200b\ufeff\udcff“”")

SPOILT = {
    "quotes": '"{}"',
    "single quotes": "'{}'",
    "quotes of a text program": "“{}”",
    "an assignment": "ACME_SECRET={}",
    "an exported assignment": "export acme={}",
    "a quoted assignment": "ACME_SECRET='{}'",
    "YAML": "secret: {}",
    "JSON": '{{"secret": "{}"}}',
    "a header": "X-Secret: {}",
    "two lines": "{}\nwhsec_other",
    "lines of Windows": "{}\r\nwhsec_other",
    "a comment before it": "# of acme\n{}",
    "an escape sequence": "\x1b[0m{}",
    "a template": "${{{}}}",
    "a template of jinja": "{{{{ {} }}}}",
    "angle brackets": "<{}>",
    "a list's comma": "{},",
    "a program's end of a line": "{};",
    "a line break that nobody has made one": "{}\\n",
}
TEMPLATES = [
    "${X}",
    "${X:-whsec_default}",
    "${{ secrets.ACME }}",
    "$X",
    "$(ACME_SECRET)",
    "{{ x }}",
    "{{x}}",
    '{{ lookup("env", "X") }}',
    "{% raw %}",
    "{secret}",
    "#{Secret}#",
    "<your-secret>",
    "<your secret>",
    "[your secret]",
    "%X%",
    "%(secret)s",
    "__SECRET__",
    "@SECRET@",
    "@@secret@@",
]
EXAMPLES = ["…", "...", "abc…", "***", "to_be_replaced", "CHANGE_ME", "changeme", "replace-me"]
EXAMPLES += ["xxxxxxxx", "0000000000000000", "????"]
EXAMPLES += ["your-secret", "your_webhook_signing_secret", "your-secret-here", "placeholder"]


@given(AROUND, GENUINE, AROUND)
def test_a_genuine_secret_is_never_refused(before: str, secret: str, after: str) -> None:
    for is_free in (True, False):
        assert secret_in(before + secret + after, is_free=is_free) == secret
    assert VENDOR_SECRET.fullmatch(secret)


@given(AROUND, BARE, AROUND)
def test_nor_is_a_base64_key_alone(before: str, secret: str, after: str) -> None:
    assert secret_in(before + secret + after, is_free=False) == secret


@given(AROUND, PUBLIC | HEX, AROUND)
def test_nor_is_a_public_key_nor_one_in_hex(before: str, key: str, after: str) -> None:
    for is_free in (True, False):
        assert secret_in(before + key + after, is_free=is_free) == key


@pytest.mark.parametrize("form", SPOILT.values(), ids=SPOILT)
@given(secret=GENUINE | PUBLIC, around=AROUND)
def test_a_genuine_secret_with_something_beside_it_is_refused_unshown(
    form: str, secret: str, around: str
) -> None:
    for is_free in (True, False):
        with pytest.raises(SecretDefect) as caught:
            secret_in(around + form.format(secret) + around, is_free=is_free)
        assert secret not in str(caught.value)


@given(BARE | HEX, st.sampled_from([",", ";", "\\n", "\\r\\n"]))
def test_nor_does_anything_follow_where_the_alphabet_is_known(secret: str, behind: str) -> None:
    with pytest.raises(SecretDefect, match="the secret alone"):
        secret_in(secret + behind, is_free=False)


@given(HEX, st.sampled_from([",", ";", "\\n"]))
def test_what_people_make_up_may_end_in_anything(secret: str, behind: str) -> None:
    assert secret_in(secret + behind, is_free=True) == secret + behind


@given(GENUINE | PUBLIC, WITHIN, st.integers(min_value=1))
def test_a_secret_of_the_vendor_has_no_white_space_quote_or_control_inside(
    secret: str, within: str, place: int
) -> None:
    place %= len(secret)
    text = secret[: max(place, 1)] + within + secret[max(place, 1) :]
    with pytest.raises(SecretDefect):
        secret_in(text, is_free=False)
    if place >= len("whsec_"):  # by then it is known whose it is, whatever the scheme
        with pytest.raises(SecretDefect):
            secret_in(text, is_free=True)


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "\ufeff", "\ufeff \r\n", "whsec_", "whsec_ \n", "whpk_"]
)
def test_nothing_is_no_secret(text: str) -> None:
    with pytest.raises(SecretDefect, match="a secret that isn't empty, got nothing"):
        secret_in(text, is_free=True)


@pytest.mark.parametrize("prefix", ["", "whsec_", "whpk_"])
@pytest.mark.parametrize("text", TEMPLATES)
def test_a_template_that_nobody_has_filled_in_is_no_secret(prefix: str, text: str) -> None:
    with pytest.raises(SecretDefect):
        secret_in(prefix + text, is_free=True)


@pytest.mark.parametrize("prefix", ["", "whsec_", "whpk_"])
@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_no_secret(prefix: str, text: str) -> None:
    with pytest.raises(SecretDefect, match="got an example that stands for one"):
        secret_in(prefix + text, is_free=True)


@pytest.mark.parametrize(
    "path", ["README.md", "deploy/make-secrets.sh", "deploy/kubernetes/example/example.sh"]
)
def test_no_secret_that_this_project_shows_is_taken_for_one(path: str) -> None:
    found = re.findall(r"wh(?:sec|pk)_[^\s\"'`,]+", (ROOT / path).read_text())
    assert found
    for text in found:
        with pytest.raises(SecretDefect):
            secret_in(text, is_free=False)


@pytest.mark.parametrize(
    "text",
    [
        "It's a Secret to Everybody",  # GitHub's published example
        'say "friend"',
        "a=b",
        "correct horse battery staple",
        "pa${ss}word",
        "100%",
        "<3",
        "geheim-ü-🔑",
        "key==",
    ],
)
def test_where_people_make_secrets_up_nearly_any_text_is_one(text: str) -> None:
    assert secret_in(text, is_free=True) == text


def test_json_is_no_secret_even_where_people_make_them_up() -> None:
    with pytest.raises(SecretDefect, match="the secret alone, got JSON"):
        secret_in('{"secret": "geheim"}', is_free=True)


def test_a_secret_that_was_encoded_once_more_is_told_as_such() -> None:
    with pytest.raises(SecretDefect, match="got one in base64 once more"):
        secret_in("d2hzZWNfTUNhY0JqNVJNd0FEQ1ZkUQ==", is_free=False)
