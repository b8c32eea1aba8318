"""What reaches the workers: a captured delivery, and those of an attacker with his own secret."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from itertools import count
from typing import Final
from uuid import uuid4

from tests.ingress_support import BETA_SECRET, request_bytes
from tests.siege.attackers import MIB, Attack, over_and_over

DEAD: Final = "order.created"
"""The type of the events whose handler fails."""

_numbers = count()
_run = uuid4().hex


def event(organization: str, kind: str, data: str, event_id: str | None = None) -> bytes:
    """An event as Sellfern sends it."""
    event_id = event_id or f"evt_{_run}{next(_numbers)}"
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        f'{{"id":"{event_id}","type":"{kind}","created_at":"{created_at}",'
        f'"organization_id":"{organization}","data":{data}}}'
    ).encode()


CAPTURED: Final = "evt_captured"
"""The id of the event whose delivery was captured."""


def _mebibyte_of(piece: str) -> Callable[[], bytes]:
    """Deliveries of the attacker's own organization, each with a body of its own."""
    data = '{"all":[' + ",".join([piece] * ((MIB - 300) // (len(piece) + 1))) + "]}"

    def make() -> bytes:
        body = event("org_beta", "order.updated", data)
        return request_bytes(body, path="/webhooks/beta", secret=BETA_SECRET)

    return make


def _garbage() -> bytes:
    """A signed mebibyte that is no event, and is kept as a dead letter."""
    body = f"{_run}{next(_numbers):08}".encode().ljust(MIB, b"x")
    return request_bytes(body, path="/webhooks/beta", secret=BETA_SECRET)


@cache
def _captured() -> bytes:
    return request_bytes(event("org_acme", DEAD, "{}", CAPTURED))


WORKER_ATTACKS: Final = {
    "captured": Attack(
        "a captured delivery of a dead event, again and again",
        16,
        over_and_over(_captured),
    ),
    "signed garbage": Attack(
        "1 MiB that is no event, signed with a secret of the attacker's own",
        4,
        over_and_over(_garbage),
    ),
    "small objects": Attack(
        '1 MiB of `{"a":1}` in each delivery', 4, over_and_over(_mebibyte_of('{"a":1}'))
    ),
    "nested lists": Attack("1 MiB of `[[[]]]`", 4, over_and_over(_mebibyte_of("[[[]]]"))),
}
"""By name. Healthy events are those of ``org_acme``."""
