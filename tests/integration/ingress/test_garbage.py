"""The public port answers anything, in its own shape or not at all, and lets go of it."""

import asyncio
import contextlib
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingress_support import (
    BODY,
    Client,
    RecordingWriter,
    Running,
    chunked,
    request_bytes,
    running,
)
from tests.integration.ingress.public_port import (
    PATIENCE,
    chunked_head,
    connections,
    until,
)
from tests.integration.ingress.segments import Arrivals

HEAD = request_bytes()[: -len(BODY)]
PIECES = [
    request_bytes(),
    request_bytes(path="/"),
    HEAD,
    HEAD[:-2],
    BODY,
    chunked_head(),
    chunked(BODY),
    chunked(BODY)[:-5],
    b"POST /webhooks/acme HTTP/1.1\r\n",
    b"POST ",
    b"GET ",
    b"CONNECT ",
    b"OPTIONS * HTTP/1.1\r\n",
    b"http://",
    b"/webhooks/acme",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: x\r\n",
    b"Host: x\r\n\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n",
    HEAD[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Expect: 100-continue\r\n",
    b"5\r\nabcde\r\n",
    b"0\r\n\r\n",
    b"x" * 9000,
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b":",
    b";",
    b"\xff",
]
ANSWER = re.compile(
    rb"HTTP/(?:0\.9|1\.0|1\.1|2\.0) (\d{3}) [A-Za-z ]+\r\n((?:[A-Z][^\r\n]*\r\n)+)\r\n"
)
_README = (Path(__file__).parents[3] / "ingress" / "README.md").read_text(encoding="utf-8")
DOCUMENTED = _README.partition("## Answers\n")[2].partition("\n## ")[0]
STATUSES = {202, 400, 401, 404, 405, 408, 413, 415, 431}

parts = st.lists(
    st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), min_size=1, max_size=8).map(
        b"".join
    ),
    min_size=1,
    max_size=4,
)


class Port:
    """A public port that lives through many examples, and what went wrong on its loop."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()
        self.surprises: list[Any] = []
        self.place = runner.run(self._open())

    async def _open(self) -> Running:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.surprises.append(context))
        times: dict[str, Any] = {
            "header_seconds": 100,
            "body_seconds": 100,
            "keepalive_seconds": 100,
        }
        return await self._stack.enter_async_context(running(RecordingWriter(), **times))

    def close(self) -> None:
        self._runner.run(self._stack.aclose())

    def answers(self, parts: list[bytes], *, reads: Arrivals | None = None) -> bytes:
        """All that is said to a client that sends these parts and then ends its side.

        With the arrivals at the port, each part is a read of its own there.
        """
        return self._runner.run(self._answers(parts, reads))

    async def _answers(self, parts: list[bytes], reads: Arrivals | None) -> bytes:
        async with asyncio.timeout(PATIENCE), Client.to(self.place.port) as client:
            reading = asyncio.create_task(client.reader.read())
            with contextlib.suppress(OSError, RuntimeError):  # closed meanwhile
                for part in parts:
                    await (reads.send(client, part, 1) if reads else client.send(part))
                    await asyncio.sleep(0)
                client.writer.write_eof()
            with contextlib.suppress(ConnectionError):
                return await reading
        return b""

    async def _let_go(self) -> None:
        await until(lambda: not connections(self.place) and self.place.held == 0)

    def let_go(self) -> None:
        """Wait until nothing of the clients is left."""
        self._runner.run(self._let_go())


@pytest.fixture(scope="module", params=[asyncio.new_event_loop, uvloop.new_event_loop])
def port(request: pytest.FixtureRequest) -> Iterator[Port]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        port = Port(runner)
        yield port
        port.close()


@given(parts=parts)
@settings(max_examples=150)
def test_whatever_is_sent_the_answers_are_whole_and_nothing_is_left_open(
    port: Port, parts: list[bytes]
) -> None:
    check_answers(port.answers(parts))
    port.let_go()
    assert port.surprises == []


@pytest.fixture(scope="module")
def reads() -> Iterator[Arrivals]:
    """What the port of this process has read."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        arrivals = Arrivals()
        arrivals.watch(monkeypatch)
        yield arrivals


@pytest.mark.whole("it cuts by itself")
@given(raw=parts.map(b"".join), cuts=st.lists(st.integers(0, 600), max_size=8).map(sorted))
@settings(max_examples=150, deadline=None)
def test_whatever_is_sent_in_whatever_reads_every_answer_is_a_documented_one(
    port: Port, reads: Arrivals, raw: bytes, cuts: list[int]
) -> None:
    ends = [*cuts, len(raw)]
    segments = [raw[begin:end] for begin, end in zip([0, *cuts], ends, strict=True)]
    check_answers(port.answers([each for each in segments if each], reads=reads))
    port.let_go()
    assert port.surprises == []


def check_answers(said: bytes) -> None:
    """Fail unless what was said is whole answers that the README tells of; a 503 is for us."""
    while said:
        said = said.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
        answer = ANSWER.match(said)
        assert answer is not None
        assert int(answer[1]) in STATUSES
        length = re.search(rb"Content-Length: (\d+)\r\n", answer[2])
        assert length is not None
        end = answer.end() + int(length[1])
        content = json.loads(said[answer.end() : end])
        assert set(content) in ({"success", "error", "meta"}, {"success", "data", "meta"})
        if "error" in content:
            assert f"{answer[1].decode()} `" in DOCUMENTED
            assert f"`{content['error']['code']}`" in DOCUMENTED
        said = said[end:]
