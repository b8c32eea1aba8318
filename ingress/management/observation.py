"""Asks the running ingresses which secrets they know and which they have seen used."""

from collections.abc import Sequence
from secrets import token_hex
from urllib.parse import quote

import msgspec
from aiohttp import ClientError, ClientSession, ClientTimeout

from ingress.http.secret_use import ROUTE, proof
from shared.errors import SellfernError
from shared.settings.secret import Secret

TIMEOUT_SECONDS = 5.0
"""How long an ingress may take to answer."""


class ObservationError(SellfernError):
    """An ingress doesn't tell; the message says which one."""


class _Secret(msgspec.Struct):
    proven: bool
    active: bool
    verified: int


class _Page(msgspec.Struct):
    secrets: list[_Secret]


class Ingresses:
    """The running ingresses, by their admin sites.

    Args:
        session: makes the requests.
        urls: of the admin sites, each without a slash at its end.
    """

    def __init__(self, session: ClientSession, urls: Sequence[str]) -> None:
        self._session = session
        self._urls = urls

    async def all_know(self, endpoint_id: str, secret: Secret) -> bool:
        """Whether each of them accepts a secret.

        Raises:
            ObservationError: one of them doesn't tell.
        """
        found = await self._find(endpoint_id, secret)
        return all(each.active for each in found)

    async def count(self, endpoint_id: str, secret: Secret) -> int:
        """How many deliveries a secret has verified, at all of them together.

        Raises:
            ObservationError: one of them doesn't tell.
        """
        found = await self._find(endpoint_id, secret)
        return sum(each.verified for each in found)

    async def _find(self, endpoint_id: str, secret: Secret) -> list[_Secret]:
        """What each ingress says of a secret."""
        found: list[_Secret] = []
        for url in self._urls:
            query = _proof(endpoint_id, secret)
            page = await self._page(f"{url}{ROUTE}{quote(endpoint_id)}?{query}")
            known = [each for each in page.secrets if each.proven]
            # One that doesn't know it counts, too: that every ingress knows it is the question.
            found += known or [_Secret(proven=False, active=False, verified=0)]
        return found

    async def _page(self, url: str) -> _Page:
        timeout = ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            # A redirect would take the proof to somebody who was never named.
            async with self._session.get(url, timeout=timeout, allow_redirects=False) as response:
                return msgspec.json.decode(await response.read(), type=_Page)
        except TimeoutError:
            why = f"no answer within {TIMEOUT_SECONDS:g} s"
        except (msgspec.DecodeError, UnicodeDecodeError):
            why = "another answer"
        except (ClientError, OSError, ValueError) as exc:
            why = str(exc) or type(exc).__name__
        raise ObservationError(
            f"{url}: expected the admin site of a running ingress of this version, got {why}. "
            "Name them by --ingress http://HOST:PORT, once for each ingress"
        )


def _proof(endpoint_id: str, secret: Secret) -> str:
    """What shows an ingress which secret is meant."""
    nonce = token_hex(16)
    return f"nonce={nonce}&proof={proof(secret, endpoint_id, nonce)}"
