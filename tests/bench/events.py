"""Events to measure with, signed: by themselves of 300 bytes and of ten organizations."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Final

from shared.queue.job import Delivery
from shared.sellfern import signature
from shared.sellfern.scheme import SELLFERN

BODY_BYTES: Final = 300
ORGANIZATIONS: Final = tuple(f"org_{number:016x}" for number in range(1, 11))
"""Ten, so that no organization is at its cap while a worker is busy with all of them."""


def body(organization: str, event_id: str, size: int = BODY_BYTES) -> bytes:
    """An event as Sellfern sends it, padded to so many bytes."""
    created_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    start = (
        f'{{"id":"{event_id}","type":"order.updated","created_at":"{created_at}",'
        f'"organization_id":"{organization}","data":{{"order_id":"ord_1","note":"'
    )
    return f'{start}{"x" * (size - len(start) - 3)}"}}}}'.encode()


def event_id(number: int, kind: str = "0") -> str:
    """An id as long as Sellfern's; the kind tells one batch's events from another's."""
    return f"evt_{kind}{number:025d}"


def bodies(
    number: int,
    organizations: Sequence[str] = ORGANIZATIONS,
    kind: str = "0",
    size: int = BODY_BYTES,
) -> Iterable[tuple[str, bytes]]:
    """So many different events, each organization in its turn."""
    for each in range(number):
        organization = organizations[each % len(organizations)]
        yield organization, body(organization, event_id(each, kind), size)


def deliveries(
    number: int,
    organizations: Sequence[str] = ORGANIZATIONS,
    kind: str = "0",
    size: int = BODY_BYTES,
) -> Iterable[Delivery]:
    """The same as the ingress hands them to the queue."""
    received_at = round(time() * 1000)
    for organization, content in bodies(number, organizations, kind, size):
        yield Delivery(organization, organization, received_at, _HEADERS, content)


_HEADERS: Final = {"content-type": "application/json", "x-sellfern-event": "order.updated"}


def secret(organization: str) -> str:
    """The secret of an organization's endpoint."""
    return f"whsec_of_{organization}"


def request(organization: str, content: bytes) -> bytes:
    """A signed delivery as it goes over the wire; the endpoint has the organization's id."""
    signed = signature.sign(
        SELLFERN, content, secret(organization).encode(), now=0.0, message_id=""
    )
    fields = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "User-Agent": "Sellfern",
        "X-Sellfern-Event": "order.updated",
        "Content-Length": str(len(content)),
        **signed,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /webhooks/{organization} HTTP/1.1\r\n{head}\r\n".encode() + content


def write_endpoints(
    folder: Path,
    organizations: Sequence[str] = ORGANIZATIONS,
    rates: Mapping[str, str] = {},
    each: str = "",
) -> Path:
    """An endpoints file with one endpoint for each organization, and the rates of some.

    Args:
        folder: where to; the file takes the place of an earlier one in one step.
        organizations: their ids.
        rates: by organization.
        each: lines of every endpoint.
    """
    path = folder / "endpoints.toml"
    draft = folder / "endpoints.draft"
    draft.write_text(
        "\n".join(
            f'[[endpoint]]\nid = "{name}"\norganization_id = "{name}"\n'
            f'secrets = ["{secret(name)}"]\n'
            + (f'rate = "{rates[name]}"\n' if name in rates else "")
            + each
            for name in organizations
        )
    )
    draft.rename(path)
    return path
