"""What is odd about secrets that are accepted."""

import pytest

from shared.endpoints.secret_doubts import doubts
from shared.sellfern.scheme import SELLFERN, STANDARD_WEBHOOKS, Scheme
from shared.settings.secret import Secret

GITHUB = Scheme("described", "X-Hub-Signature-256", prefix="sha256=")
HEX = Scheme("described", "X-Signature", secret_encoding="hex")
HEX_KEY = Scheme("described", "X-Signature", secret_encoding="hex", secret_prefix="key-")
LONG = "MCacBj5RMwADCVdQsSqKrUzF"


def codes(text: str, scheme: Scheme) -> list[str]:
    found = list(doubts(Secret(text), scheme))
    assert not any(text in doubt.message for doubt in found)
    return [doubt.code for doubt in found]


@pytest.mark.parametrize(
    ("text", "scheme", "expected"),
    [
        (f"whsec_{LONG}", SELLFERN, []),
        (f"whsec_{LONG}", STANDARD_WEBHOOKS, []),
        (LONG, STANDARD_WEBHOOKS, []),
        ("correct-horse-battery-staple", GITHUB, []),
        ("correct horse battery staple", GITHUB, ["secret_odd"]),
        ("x", GITHUB, ["secret_tiny"]),
        ("whsec_123456789012345", SELLFERN, ["secret_tiny"]),
        ("whsec_1234567890123456", SELLFERN, []),
        ("whsec_MTIzNDU2Nzg5MDEy", STANDARD_WEBHOOKS, ["secret_tiny"]),
        ("0123456789abcdef" * 2, HEX, []),
        ("0123456789abcdef", HEX, ["secret_tiny"]),
        (f"whpk_{LONG}", STANDARD_WEBHOOKS, []),
        ("whpk_AA", STANDARD_WEBHOOKS, []),  # short or long, everybody may know it
        ("key-" + "0f" * 16, HEX_KEY, []),
        ("key-" + "0f" * 15, HEX_KEY, ["secret_tiny"]),
        (LONG, SELLFERN, ["secret_not_sellfern"]),
        (f"whsec_{LONG},", SELLFERN, ["secret_not_sellfern"]),
        (f"whsec_{LONG}=a", SELLFERN, ["secret_not_sellfern"]),
    ],
)
def test_what_is_odd_has_a_code_each(text: str, scheme: Scheme, expected: list[str]) -> None:
    assert codes(text, scheme) == expected
