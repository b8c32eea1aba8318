"""Facts about proving to an admin site that one knows a secret."""

import hmac

import pytest

from ingress.http.secret_use import proof, proves
from shared.settings.secret import Secret

SECRET = Secret("whsec_one")


def test_who_knows_the_secret_proves_it() -> None:
    assert proves(proof(SECRET, "acme", "n1"), SECRET, "acme", "n1")


@pytest.mark.parametrize(
    ("secret", "endpoint", "nonce"),
    [
        (Secret("whsec_two"), "acme", "n1"),
        (SECRET, "bolt", "n1"),
        (SECRET, "acme", "n2"),
        (SECRET, "acme\nn1", ""),
    ],
)
def test_a_proof_is_good_for_one_secret_one_endpoint_and_one_nonce(
    secret: Secret, endpoint: str, nonce: str
) -> None:
    assert not proves(proof(secret, endpoint, nonce), SECRET, "acme", "n1")


@pytest.mark.parametrize("said", ["", "ä", "\ud83d", "\x00", "0" * 64, "0" * 100_000])
def test_whatever_else_is_said_is_no_proof(said: str) -> None:
    assert not proves(said, SECRET, "acme", "\ud83d")


def test_a_proof_is_no_signature_of_a_delivery() -> None:
    """The nonce is the asker's: it may be whatever a delivery could have said."""
    body = b'acme\n{"id":"evt_1"}'
    signed = hmac.digest(SECRET.reveal().encode(), body, "sha256").hex()
    assert proof(SECRET, "acme", '{"id":"evt_1"}') != signed
