"""Which endpoint at Sellfern is which one here, and how the two differ."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from yarl import URL

from ingress.http.receive import ROUTE
from ingress.management.client import RemoteEndpoint
from shared.endpoints.endpoint import Endpoints
from shared.errors import SellfernError
from shared.sellfern.reference import Reference

ROTATION = "rotation"
"""The query parameter by which Sellfern tells an endpoint's next registration from its first."""


class MatchError(SellfernError):
    """The endpoint that is meant can't be told; the message says which ones there are."""


@dataclass(frozen=True, slots=True)
class Row:
    """One endpoint, as far as it is here and at Sellfern.

    Attributes:
        endpoint: its id here, if it is in the endpoints file.
        remote: what Sellfern has, if it has it.
        drift: how the two differ, in a few words each.
    """

    endpoint: str | None
    remote: RemoteEndpoint | None
    drift: tuple[str, ...]


def endpoint_url(public_url: str, endpoint_id: str) -> str:
    """The URL of an endpoint, as it is registered."""
    return f"{public_url}{ROUTE}{endpoint_id}"


def is_of(url: str, endpoint_id: str) -> bool:
    """Whether deliveries to a URL come to this endpoint, whatever its host and its query."""
    try:
        return urlsplit(url).path.endswith(f"{ROUTE}{endpoint_id}")
    # urlsplit refuses some hosts, such as half an address of IPv6.
    except ValueError:
        return False


def registrations(remotes: Sequence[RemoteEndpoint], endpoint_id: str) -> list[RemoteEndpoint]:
    """What Sellfern has for an endpoint; several during a rotation."""
    return [remote for remote in remotes if is_of(remote.url, endpoint_id)]


def the_one(
    remotes: Sequence[RemoteEndpoint], endpoint_id: str, remote_id: str | None
) -> RemoteEndpoint:
    """The one registration of an endpoint.

    Args:
        remotes: all that the organization has.
        endpoint_id: here.
        remote_id: which one is meant, where there are several.

    Raises:
        MatchError: there is none, or more than one.
    """
    found = registrations(remotes, endpoint_id)
    if remote_id is not None:
        found = [remote for remote in found if remote.id == remote_id]
    if len(found) == 1:
        return found[0]
    if not found:
        raise MatchError(
            f"{endpoint_id}: expected it among the organization's endpoints at Sellfern "
            f"(see: endpoints list), got none with a URL that ends in {ROUTE}{endpoint_id}"
            + (f" and the id {remote_id}" if remote_id else "")
        )
    listed = ", ".join(f"{remote.id} ({remote.url})" for remote in found)
    raise MatchError(
        f"{endpoint_id}: expected one registration, got {len(found)}: {listed}. If a rotation is "
        "under way, end it first (rotate, or rotate --abort); else say which one by --id"
    )


def next_rotation(remotes: Sequence[RemoteEndpoint], remote: RemoteEndpoint) -> str:
    """The URL of an endpoint's next registration: the same, under a number not used yet."""
    # As it is written: yarl would quote it anew, and it would no longer be the same text.
    url = URL(remote.url, encoded=True)
    bare = str(url.with_query(None).with_fragment(None))
    used = [_number(each.url) for each in remotes if each.url.partition("?")[0] == bare]
    return str(url.update_query({ROTATION: str(max(used, default=1) + 1)}))


def side_by_side(
    endpoints: Endpoints,
    organization: str,
    remotes: Sequence[RemoteEndpoint] | None,
    *,
    public_url: str | None,
    reference: Reference,
    rotating: Collection[str],
    now: float,
) -> Iterator[Row]:
    """The organization's endpoints here and at Sellfern, each pair in a row.

    Args:
        endpoints: of the endpoints file.
        organization: whose.
        remotes: what Sellfern has; None where it can't be asked.
        public_url: where this ingress is reached, if that is known.
        reference: what is available.
        rotating: the endpoints whose secret is being rotated.
        now: seconds since the epoch.
    """
    mine = {name: each for name, each in endpoints.items() if each.organization_id == organization}
    for name, endpoint in mine.items():
        found = registrations(remotes or (), name)
        local = [] if endpoint.active(now) else ["no active secret"]
        if remotes is not None and not found:
            local.append("not at Sellfern")
        # Nobody but its journal can tell a rotation from a mistake.
        if len(found) > 1:
            local.append("rotating" if name in rotating else "registered more than once")
        for remote in found:
            drift = [*local, *_remote_drift(name, remote, public_url, reference)]
            yield Row(name, remote, tuple(drift))
        if not found:
            yield Row(name, None, tuple(local))
    for remote in remotes or ():
        if not any(is_of(remote.url, name) for name in mine):
            yield Row(None, remote, ("not in the endpoints file",))


def shown(row: Row, organization: str) -> Mapping[str, object]:
    """A row for a table or for JSON."""
    remote = row.remote
    return {
        "endpoint": row.endpoint,
        "organization": organization,
        "remote_id": remote and remote.id,
        "url": remote and remote.url,
        "enabled": remote and remote.enabled,
        "events": remote and remote.events,
        "drift": ", ".join(row.drift),
    }


def _remote_drift(
    name: str, remote: RemoteEndpoint, public_url: str | None, reference: Reference
) -> Iterator[str]:
    if not remote.enabled:
        yield "disabled"
    if public_url and remote.url.partition("?")[0] != endpoint_url(public_url, name):
        yield "another address"
    unavailable = [event for event in remote.events if not reference.is_available(event)]
    if unavailable:
        yield f"unavailable events: {' '.join(unavailable)}"


def _number(url: str) -> int:
    # Somebody may have written anything there: what is no small number counts as the first.
    text = URL(url, encoded=True).query.get(ROTATION, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1  # noqa: PLR2004
