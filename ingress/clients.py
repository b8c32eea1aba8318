"""Whose request it is: the client's address, as the proxies that are trusted tell it."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp import hdrs, web

Network = IPv4Network | IPv6Network
_Address = IPv4Address | IPv6Address

_MOST_HOPS: Final = 32
_MOST_CHARACTERS: Final = 2048  # of the headers, from their end, which the nearest proxy wrote
_FOR: Final = re.compile(r'(?:^|[;,\s])for=(?:"([^"]*)"|([^;,\s"]*))', re.IGNORECASE)
_BRACKETED: Final = re.compile(r"\[([^\]]*)\](?::[0-9]*)?")
_WITH_PORT: Final = re.compile(r"([0-9.]+):[0-9]*")


def client_address(request: web.BaseRequest, trusted: Sequence[Network]) -> str | None:
    """The address of the client, for people to read; None where the system tells none.

    Each proxy adds whom it got the request from at the end of ``Forwarded`` or
    ``X-Forwarded-For``; what stands before that, anybody may have written. So it is the last one
    that isn't trusted. Where the two headers contradict each other, nobody can say which one the
    proxy wrote: then it is the proxy's own address.
    """
    address = _parsed(request.remote or "")
    # A socket of both families writes an IPv4 peer as ::ffff:192.0.2.1, which nobody searches for.
    peer = request.remote if address is None else str(address)
    if not trusted or address is None or not _is_trusted(address, trusted):
        return peer
    found = {
        _through(address, hops, trusted) for hops in (_forwarded(request), _listed(request)) if hops
    }
    return str(found.pop()) if len(found) == 1 else peer


def _through(address: _Address, hops: list[str], trusted: Sequence[Network]) -> _Address:
    """From the nearest proxy on, as far as those are trusted that tell."""
    for hop in reversed(hops[-_MOST_HOPS:]):
        before = _parsed(hop)
        if before is None:  # "unknown", or a name that a proxy made up
            break
        address = before
        if not _is_trusted(address, trusted):
            break
    return address


def _forwarded(request: web.BaseRequest) -> list[str]:
    value = _joined(request, hdrs.FORWARDED)
    return [quoted or plain for quoted, plain in _FOR.findall(value)]


def _listed(request: web.BaseRequest) -> list[str]:
    value = _joined(request, hdrs.X_FORWARDED_FOR)
    return value.split(",") if value else []


def _joined(request: web.BaseRequest, name: str) -> str:
    return ",".join(request.headers.getall(name, []))[-_MOST_CHARACTERS:]


def _parsed(text: str) -> _Address | None:
    text = text.strip()
    found = _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)
    text = found[1] if found else text
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id:  # free text
            return None
        return address.ipv4_mapped or address
    return address


def _is_trusted(address: _Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
