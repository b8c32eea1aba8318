"""Sends deliveries as Sellfern would: side by side, and again where the answer is no answer."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Final

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector

from deploy.local.traffic import Delivery

ACCEPTED: Final = "accepted"
KNOWN: Final = "known"

_SIDE_BY_SIDE: Final = 64
_ANSWER_SECONDS: Final = 15.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 2.0


class Sender:
    """Plays Sellfern.

    Args:
        url: of the ingress, up to the endpoint's id.
        side_by_side: how many requests are on their way at once.

    Attributes:
        sent: deliveries that were begun.
        answers: what became of each by its number: ``accepted``, ``known``, or the code of the
            error.
        unanswered: how often a request had to be sent again, after a 5xx or no answer at all.
    """

    def __init__(self, url: str, *, side_by_side: int = _SIDE_BY_SIDE) -> None:
        self._url = url
        self._side_by_side = side_by_side
        self.sent = 0
        self.answers: dict[int, str] = {}
        self.unanswered = 0

    @property
    def by_answer(self) -> Counter[str]:
        """How many deliveries got each answer."""
        return Counter(self.answers.values())

    @property
    def accepted(self) -> int:
        """How many deliveries were accepted, new or known."""
        counts = self.by_answer
        return counts[ACCEPTED] + counts[KNOWN]

    async def send(self, deliveries: Iterable[Delivery]) -> None:
        """Begin the deliveries in their order; returns when each has its answer."""
        line = iter(deliveries)
        async with (
            ClientSession(
                connector=TCPConnector(limit=self._side_by_side),
                timeout=ClientTimeout(total=_ANSWER_SECONDS),
            ) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for _ in range(self._side_by_side):
                tasks.create_task(self._work_off(session, line))

    async def _work_off(self, session: ClientSession, line: Iterator[Delivery]) -> None:
        for delivery in line:
            self.sent += 1
            self.answers[delivery.number] = await self._deliver(session, delivery)

    async def _deliver(self, session: ClientSession, delivery: Delivery) -> str:
        """Send it until somebody has decided; no schedule is published, so a short one is used."""
        pause = _FIRST_PAUSE
        while True:
            with contextlib.suppress(ClientError, OSError, TimeoutError):
                answer = await self._post(session, delivery)
                if answer is not None:
                    return answer
            self.unanswered += 1
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _post(self, session: ClientSession, delivery: Delivery) -> str | None:
        url = self._url + delivery.endpoint
        async with session.post(url, data=delivery.body, headers=delivery.headers) as response:
            text = await response.text(errors="replace")
            if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                return None
            return _answer(response.status, text)


def _answer(status: int, text: str) -> str:
    """What the body says, or the status where it says nothing."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        answer = json.loads(text)
        is_success = status < HTTPStatus.BAD_REQUEST
        return str(answer["data"]["status"] if is_success else answer["error"]["code"])
    return f"http_{status}"
