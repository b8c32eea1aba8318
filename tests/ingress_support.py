"""What tests of the ingress share: endpoints, signed deliveries, raw connections."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from ingress.clients import Network
from ingress.http.listener import Listener, Readiness, listening
from ingress.http.receive import Receiver, Writer
from ingress.settings import IngressSettings, Limits
from shared.endpoints.endpoint import CurrentEndpoints, Endpoints
from shared.endpoints.union import parse_endpoints
from shared.errors import Problem
from shared.queue.job import Delivery
from shared.queue.writer import Accepted
from shared.sellfern import signature
from shared.sellfern.scheme import SELLFERN

SECRET = "whsec_of_acme"
BETA_SECRET = "whsec_of_beta"
ENDPOINTS = f"""
[[endpoint]]
id = "acme"
organization_id = "org_acme"
secrets = ["{SECRET}"]
weight = 2.0

[[endpoint]]
id = "beta"
organization_id = "org_beta"
secrets = ["{BETA_SECRET}"]
"""
BODY = b'{"id":"evt_1","type":"order.updated","organization_id":"org_acme","data":{}}'


@dataclass
class Known:
    """Knows endpoints, as the file of a running program does."""

    current: Endpoints


def endpoints(text: str = ENDPOINTS) -> Endpoints:
    """The endpoints of a file with this text."""
    return parse_endpoints(text, path=Path("endpoints.toml"), environ={})


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    """The headers that sign a body."""
    return signature.sign(SELLFERN, body, secret.encode(), now=0.0, message_id="msg_1")


def request_bytes(
    body: bytes = BODY,
    *,
    path: str = "/webhooks/acme",
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    secret: str = SECRET,
    length: int | None = None,
) -> bytes:
    """A whole signed request as it goes over the wire; ``length`` is what it announces."""
    fields = {
        "Host": "localhost",
        "Content-Length": str(len(body) if length is None else length),
        **signed(body, secret),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


def chunked(*chunks: bytes) -> bytes:
    """A body in chunks, with its end."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # JSON is anything
        """The body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error's code, or the status of what was accepted."""
        return str(
            self.json["error"]["code"] if "error" in self.json else self.json["data"]["status"]
        )


class Client:
    """A connection of one's own, to send exactly what a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Self]:
        """Connect for the time of a block."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, *parts: bytes) -> None:
        """Send bytes."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def reply(self) -> Reply:
        """Read one answer; raises EOFError where the connection ends without."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(first.split()[1]), headers, body)

    async def ask(self, *parts: bytes) -> Reply:
        """Send bytes and read the answer."""
        await self.send(*parts)
        return await self.reply()

    async def is_closed(self) -> bool:
        """Wait until the other side closes; whether it said nothing more."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


async def ask(port: int, *parts: bytes) -> Reply:
    """One answer over a connection of its own."""
    async with Client.to(port) as client:
        return await client.ask(*parts)


class RecordingWriter:
    """A queue that remembers; it may be held up, or told to fail."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []
        self.failure: Exception | None = None
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def accept(self, delivery: Delivery) -> Accepted:
        """Remember it, once the gate is open."""
        self.reached.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        known = delivery.body in [earlier.body for earlier in self.deliveries]
        self.deliveries.append(delivery)
        return Accepted.KNOWN if known else Accepted.NEW


async def _no_problems() -> list[Problem]:
    return []


@dataclass(frozen=True, slots=True)
class Running:
    """A public port in this process, with a fake queue behind it."""

    listener: Listener
    readiness: Readiness
    receiver: Receiver

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.listener.port

    @property
    def held(self) -> int:
        """The bytes in flight."""
        return self.receiver.in_flight.held


@contextlib.asynccontextmanager
async def running(
    writer: Writer,
    *,
    known: CurrentEndpoints | None = None,
    drain_delay: float = 0.0,
    drain_seconds: float = 10.0,
    trusted_proxies: Sequence[Network] = (),
    **limits: Any,  # fields of Limits
) -> AsyncIterator[Running]:
    """Listen on a port of its own."""
    settings = replace(
        IngressSettings.from_environ({"INGRESS_PORT": "0"}),
        limits=replace(Limits(), **limits),
        drain_delay=drain_delay,
        drain_seconds=drain_seconds,
        trusted_proxies=tuple(trusted_proxies),
    )
    receiver = Receiver(known or Known(endpoints()), writer, settings.limits)
    readiness = Readiness(_no_problems)
    async with listening(settings, receiver, readiness) as listener:
        yield Running(listener, readiness, receiver)
