"""The console on a free port, and a browser without a screen."""

import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from html import unescape
from time import process_time
from typing import Any

from aiohttp import ClientSession, CookieJar
from multidict import CIMultiDictProxy
from redis.asyncio import Redis

from shared.queue.partitions import Partitions
from tests.integration.jobs import processor_time
from tests.log_support import CapturedLog
from worker.operate.console.app import serving
from worker.operate.console.settings import ConsoleSettings

TOKEN = "a token of the console"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the console answered.

    Attributes:
        status: of the answer.
        headers: of it.
        text: its body.
        path: where redirections have led.
    """

    status: int
    headers: CIMultiDictProxy[str]
    text: str
    path: str

    @property
    def fields(self) -> dict[str, str]:
        """The hidden fields of its forms."""
        found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', self.text)
        return {name: unescape(value) for name, value in found}

    def links(self, path: str) -> list[str]:
        """Its links that begin with a path."""
        found = [unescape(each) for each in re.findall(r'href="([^"]*)"', self.text)]
        return [each for each in found if each.startswith(path)]


@dataclass(frozen=True, slots=True)
class Site:
    """The console as somebody's browser sees it.

    Attributes:
        session: the browser.
        port: of the console.
        name: under which the browser knows the console.
    """

    session: ClientSession
    port: int
    name: str = "127.0.0.1"

    @property
    def origin(self) -> str:
        """What the browser says of a form's origin."""
        return f"http://{self.name}:{self.port}"

    async def get(self, path: str, **headers: str) -> Answer:
        """Follow a link."""
        return await self._ask("GET", path, None, headers)

    async def post(self, path: str, form: Mapping[str, str], **headers: str) -> Answer:
        """Send a form, as its page's browser would."""
        return await self._ask("POST", path, form, {"Origin": self.origin, **headers})

    async def confirm(self, path: str, **changes: str) -> Answer:
        """Open a page that asks, and say yes."""
        asked = await self.get(path)
        assert asked.status == 200, asked.text
        return await self.post(path.partition("?")[0], {**asked.fields, **changes})

    async def _ask(
        self, method: str, path: str, form: Mapping[str, str] | None, headers: Mapping[str, str]
    ) -> Answer:
        url = f"{self.origin}{path}"
        async with self.session.request(method, url, data=form, headers=headers) as response:
            text = await response.text()
            return Answer(response.status, response.headers, text, response.url.path_qs)


@contextlib.asynccontextmanager
async def browsing(
    redis: Redis,
    partitions: Partitions | None = None,
    *,
    patience: float = 0.3,
    interval: float = 0.1,
    **environ: str,
) -> AsyncIterator[Site]:
    """A console with these settings, of the single queue or of several, and a new browser."""
    settings = ConsoleSettings.from_mapping({"CONSOLE_PORT": "0", **environ})
    async with (
        serving(
            settings, partitions or Partitions.only(redis), interval=interval, patience=patience
        ) as port,
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as session,
    ):
        yield Site(session, port)


async def least(site: Site, redis: Redis, path: str) -> float:
    """Seconds of a processor, ours and Redis's, that a page takes: the least of three looks."""

    async def so_far() -> float:
        return process_time() + await processor_time(redis)

    took = []
    for _ in range(3):
        before = await so_far()
        assert (await site.get(path)).status == 200, path
        took.append(await so_far() - before)
    return min(took)


def told(log: CapturedLog, event: str) -> list[dict[str, Any]]:
    """The lines of an event."""
    return [line for line in log.lines if line["event"] == event]
