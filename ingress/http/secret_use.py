"""Tells how often endpoints' secrets have verified, and of which endpoints none does."""

import heapq
import hmac
from collections.abc import Iterator, Mapping
from hashlib import sha256
from http import HTTPStatus
from operator import itemgetter
from time import time
from typing import Final

from aiohttp import web
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared.endpoints.endpoint import CurrentEndpoints, Endpoint
from shared.program.admin import json_answer
from shared.settings.secret import Secret

ROUTE = "/endpoints/"
"""What comes before an endpoint's id on the admin site."""


class SecretUse:
    """The page of the admin site about the secrets of an endpoint.

    Whoever rotates a secret has to know that every ingress has read the new one, and later that
    it is used. The admin site asks nobody for a login, so the page tells nothing that a guessed
    secret could be held against: who knows a secret proves that in the query (``nonce`` and
    ``proof``, see `proof`), and is told which one it is. A guess costs a request, as a signature
    at the public port does.

    Args:
        endpoints: knows them as they are now.
        verified: how many deliveries to an endpoint a secret has verified.
    """

    def __init__(
        self, endpoints: CurrentEndpoints, verified: Mapping[tuple[str, bytes], int]
    ) -> None:
        self._endpoints = endpoints
        self._verified = verified

    def routes(self) -> list[web.RouteDef]:
        """The page of the admin site that tells."""
        return [web.get(ROUTE + "{id}", self._show)]

    async def _show(self, request: web.Request) -> web.Response:
        endpoint = self._endpoints.current.get(request.match_info["id"])
        if endpoint is None:
            return json_answer(HTTPStatus.NOT_FOUND, {"secrets": []})
        told: dict[str, object] = {"secrets": self._rows(endpoint, request.query)}
        # What can't be read can't be proven either: without this it would look like a wrong secret.
        if endpoint.missing:
            told["missing"] = [str(secret.error) for secret in endpoint.missing]
        return json_answer(HTTPStatus.OK, told)

    def _rows(self, endpoint: Endpoint, query: Mapping[str, str]) -> list[dict[str, object]]:
        """The secrets in the order of the file."""
        now, said, nonce = time(), query.get("proof", ""), query.get("nonce", "")
        return [
            {
                "proven": proves(said, secret.value, endpoint.id, nonce),
                "active": secret.is_active(now),
                "until": secret.until,
                "verified": self._verified.get((endpoint.id, secret.value.raw), 0),
            }
            for secret in endpoint.secrets
        ]


_PURPOSE: Final = b"sellfern-webhooks: which secrets does this ingress know?\n"


def proof(secret: Secret, endpoint_id: str, nonce: str) -> str:
    """What only somebody who knows the secret can say, in hexadecimal digits.

    Its key is a digest of the secret: so it is no signature that would pass for a delivery's,
    whatever the nonce is.

    Args:
        secret: that of an endpoint.
        endpoint_id: which one; it is no proof for another.
        nonce: chosen by whoever proves, anew each time.
    """
    key = sha256(_PURPOSE + secret.raw).digest()
    return hmac.digest(key, _bytes(f"{endpoint_id}\n{nonce}"), "sha256").hex()


def proves(said: str, secret: Secret, endpoint_id: str, nonce: str) -> bool:
    """Whether what was said is the `proof`; it takes as long wherever the difference is."""
    return hmac.compare_digest(_bytes(said), proof(secret, endpoint_id, nonce).encode())


def _bytes(text: str) -> bytes:
    # Half of a surrogate pair, which a query may hold, is no error: it is only no proof.
    return text.encode("utf-8", "surrogatepass")


ENOUGH: Final = 5
"""Deliveries in a row: less may be a sender's slip."""

_NAMED: Final = 3


class WrongSignatures(Collector):
    """Shows endpoints for which only these come: one of a hundred shows in no share of all.

    Args:
        endpoints: knows them as they are now.
        rows: how many deliveries to each have had a wrong signature since one had a right one.
        named: how many endpoints may have a series of their own; no more than a few have one.
    """

    def __init__(self, endpoints: CurrentEndpoints, rows: Mapping[str, int], named: int) -> None:
        self._endpoints = endpoints
        self._rows = rows
        self._named = min(named, _NAMED)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """How many there are, and the worst of them."""
        known = ((row, self._endpoints.current.get(name)) for name, row in self._rows.items())
        long = [(row, each) for row, each in known if row >= ENOUGH and each is not None]
        about = f"Endpoints whose last {ENOUGH} deliveries or more had a wrong signature"
        yield GaugeMetricFamily("sellfern_endpoints_unverified", about, value=len(long))
        rows = GaugeMetricFamily(
            "sellfern_endpoint_wrong_signatures",
            "How many deliveries in a row, of those of these that have had the most",
            labels=["endpoint", "organization"],
        )
        for row, each in heapq.nlargest(self._named, long, key=itemgetter(0)):
            rows.add_metric([each.id, each.organization_id], row)
        yield rows
