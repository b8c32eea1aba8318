"""What the shipped proxy lets one source do, tried with the real one before a real ingress."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from itertools import count
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.ingress_process import IngressProcess, delivery, ingress
from tests.acceptance.process import environment, until
from tests.deploy.proxied import HOSTS, Ports, haproxy, is_open, program
from tests.ingress_support import Client, Reply
from tests.integration.workplace import body
from tests.ports import free_ports

CONNECTIONS: Final = 512
MORE: Final = 8
REFUSED: Final = 100
ATTACKER, VENDOR, NEIGHBOUR = "127.0.0.7", "127.0.0.8", "127.0.0.9"
"""Sources: all of 127.0.0.0/8 is this machine."""

FORGED: Final = delivery(body("evt_forged"), secret="whsec_another")
UNKNOWN: Final = delivery(body("evt_lost"), endpoint="nobody")
_numbers: Final = count()


class Front:
    """The proxy before one ingress.

    Args:
        port: of the proxy.
        receiver: behind it.
    """

    def __init__(self, port: int, receiver: IngressProcess) -> None:
        self.port = port
        self.receiver = receiver

    @contextlib.asynccontextmanager
    async def client(self, source: str) -> AsyncIterator[Client]:
        """A connection from one address, for the time of a block."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0)
        )
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def answers(self, source: str, requests: Iterable[bytes]) -> list[Reply]:
        """What comes for requests, one after another on a connection."""
        async with self.client(source) as client:
            return [await client.ask(each) for each in requests]

    async def takes(self, source: str) -> bool:
        """Whether a genuine delivery on a new connection is accepted."""
        (reply,) = await self.answers(source, [genuine()])
        return reply.status == 202


def genuine() -> bytes:
    """A delivery that was never there before."""
    return delivery(body(f"evt_{next(_numbers)}"))


@pytest.fixture
async def front(redis: Redis, redis_server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[Front]:
    port, *own = free_ports(3)
    ports = Ports(*own)
    environ = environment(
        redis_server.url,
        tmp_path,
        INGRESS_HOST=HOSTS[0],
        INGRESS_PORT=str(ports.deliveries),
        INGRESS_ADMIN_HOST=HOSTS[0],
        INGRESS_ADMIN_PORT=str(ports.admin),
    )
    async with ingress(environ) as receiver, program(*haproxy(tmp_path, port, ports)):
        await until(lambda: is_open(port))
        found = Front(port, receiver)
        await until(lambda: found.takes(NEIGHBOUR))
        yield found


@pytest.mark.parametrize("refused", [FORGED, UNKNOWN], ids=["forged", "unknown"])
async def test_who_is_only_refused_stops_reaching_an_ingress_and_nobody_else_does(
    front: Front, refused: bytes
) -> None:
    replies = await front.answers(ATTACKER, [refused] * 3 * REFUSED)
    codes = Counter(reply.status for reply in replies)
    assert codes[429] >= 1.5 * REFUSED, codes
    assert codes.keys() == {429, 401 if refused is FORGED else 404}
    told = next(reply for reply in replies if reply.status == 429)
    assert (told.code, told.headers["retry-after"]) == ("rate_limited", "10")
    assert told.json["meta"]["request_id"]
    assert not await front.takes(ATTACKER)
    assert await front.takes(VENDOR)


async def test_who_was_refused_is_let_in_again_though_he_went_on(front: Front) -> None:
    """What the proxy itself refuses counts for nothing: it ends ten seconds after the ingress's."""
    await front.answers(ATTACKER, [FORGED] * 2 * REFUSED)
    assert not await front.takes(ATTACKER)
    await until(lambda: front.takes(ATTACKER))


async def test_one_customers_wrong_secret_has_nobody_of_the_vendors_refused(front: Front) -> None:
    mixed = [part for _ in range(2 * REFUSED) for part in (genuine(), genuine(), FORGED)]
    replies = await front.answers(VENDOR, mixed)
    assert Counter(reply.status for reply in replies) == {202: 4 * REFUSED, 401: 2 * REFUSED}


async def test_one_source_holds_no_more_than_its_connections(front: Front) -> None:
    """Which of them it holds is the proxy's choice: its threads take them in as they come."""
    async with contextlib.AsyncExitStack() as opened:
        clients: list[Client] = []
        for _ in range(CONNECTIONS + MORE):
            with contextlib.suppress(ConnectionError):  # closed before it was known to be open
                clients.append(await opened.enter_async_context(front.client(ATTACKER)))

        async def are_held() -> bool:
            return len(held(clients)) <= CONNECTIONS

        await until(are_held)
        assert await front.takes(VENDOR)
        assert len(held(clients)) == CONNECTIONS
        assert (await held(clients)[0].ask(genuine())).status == 202

    async def is_let_in() -> bool:
        with contextlib.suppress(EOFError, ConnectionError):
            return await front.takes(ATTACKER)
        return False

    await until(is_let_in)


def held(clients: Iterable[Client]) -> list[Client]:
    """Those that the other side hasn't closed without a word."""
    return [
        client
        for client in clients
        if not client.reader.at_eof() and client.reader.exception() is None
    ]


async def test_a_source_that_is_trusted_has_no_limits(
    redis_server: EmbeddedRedis, tmp_path: Path, front: Front
) -> None:
    """Such as the vendor's, or a load balancer that all senders come through."""
    (port,), admin = free_ports(1), await front.receiver.logged("admin_listening")
    ports = Ports(front.receiver.port, int(admin[0]["port"]))
    folder = tmp_path / "trusting"
    folder.mkdir()
    words = haproxy(folder, port, ports)
    with (folder / "trusted.lst").open("a") as file:
        file.write("127.0.0.8/31\n")
    async with program(*words):
        await until(lambda: is_open(port))
        trusting = Front(port, front.receiver)
        replies = await trusting.answers(VENDOR, [FORGED] * 2 * REFUSED)
        assert {reply.status for reply in replies} == {401}
        replies = await trusting.answers(ATTACKER, [FORGED] * 2 * REFUSED)
        assert {reply.status for reply in replies} == {401, 429}


async def test_behind_a_load_balancer_the_limits_hold_for_who_is_behind_it(
    tmp_path: Path, front: Front
) -> None:
    """As the page says that it is set up; a source of IPv6 is a network of 64 bits."""
    (port,), admin = free_ports(1), await front.receiver.logged("admin_listening")
    folder = tmp_path / "behind"
    folder.mkdir()
    words = haproxy(folder, port, Ports(front.receiver.port, int(admin[0]["port"])))
    text = (folder / "haproxy.cfg").read_text()
    assert text.count("tcp-request connection") == 2
    text = text.replace("tcp-request connection", "tcp-request session")
    text = text.replace(f"bind 127.0.0.1:{port}", f"bind 127.0.0.1:{port} accept-proxy")
    (folder / "haproxy.cfg").write_text(text)
    async with program(*words):
        await until(lambda: is_open(port))
        behind = Front(port, front.receiver)

        async def last(address: str, requests: list[bytes]) -> int:
            first = f"PROXY TCP6 {address} 2001:db8::1 1024 443\r\n".encode()
            replies = await behind.answers(ATTACKER, [first + requests[0], *requests[1:]])
            return replies[-1].status

        assert await last("2001:db8:0:7::1", [FORGED] * 2 * REFUSED) == 429
        assert await last("2001:db8:0:7:ffff::2", [genuine()]) == 429
        assert await last("2001:db8:0:8::1", [genuine()]) == 202
