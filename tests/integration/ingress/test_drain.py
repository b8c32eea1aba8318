"""Facts about leaving: what is under way is finished, and nothing else is begun."""

import asyncio
import socket
import sys

import pytest

from ingress.http.ending_connection import FIRST_SECONDS
from ingress.http.last_connections import HANDSHAKE_SECONDS, let_in_the_last
from ingress.http.listener import DRAINING, Readiness, listening
from ingress.http.receive import Receiver
from ingress.settings import IngressSettings
from shared.errors import Problem, SettingsError
from tests.ingress_support import (
    BODY,
    Client,
    Known,
    RecordingWriter,
    Reply,
    Running,
    ask,
    endpoints,
    request_bytes,
)
from tests.integration.ingress.public_port import (
    PATIENCE,
    check_refusal,
    connections,
    ends,
    public_port,
    until,
)
from tests.log_support import CapturedLog


def is_leaving(place: Running) -> bool:
    return place.listener._connections.leaving


def is_stopped(place: Running) -> bool:
    return place.listener._connections.is_stopped


async def begun(place: Running) -> "asyncio.Task[None]":
    """Begin to drain."""
    draining = asyncio.create_task(place.listener.drain())
    await until(lambda: is_leaving(place))
    return draining


async def stopped(place: Running) -> "asyncio.Task[None]":
    """The same, up to where everybody has been told to end."""
    draining = await begun(place)
    await until(lambda: is_stopped(place))
    return draining


async def test_a_delivery_under_way_is_finished_and_its_connection_closed(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    writer.gate.clear()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        await writer.reached.wait()
        draining = await stopped(place)
        assert not draining.done()
        writer.gate.set()
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (202, "close")
        await ends(client)
        await draining
    assert log.events.count("draining") == 1
    assert "drain_cut_short" not in log.events


async def test_whoever_is_idle_only_after_all_were_told_to_end_is_told_again(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    writer.gate.clear()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        await writer.reached.wait()
        draining = await stopped(place)
        place.listener._connections.leaving = False  # as when its answer was made
        writer.gate.set()
        assert (await client.reply()).status == 202
        await ends(client)
        await draining
    assert "drain_cut_short" not in log.events


async def test_a_body_that_is_still_coming_is_waited_for(writer: RecordingWriter) -> None:
    raw = request_bytes()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(raw[:-10])
        await until(lambda: place.held > 0)
        draining = await stopped(place)
        assert (await client.ask(raw[-10:])).status == 202
        await draining


async def test_idle_connections_are_closed_and_the_port_is_free(writer: RecordingWriter) -> None:
    async with (
        public_port(writer) as place,
        Client.to(place.port) as silent,
        Client.to(place.port) as used,
    ):
        await used.ask(request_bytes())
        await until(lambda: len(connections(place)) == 2)
        await place.listener.drain()
        await ends(silent)
        await ends(used)
        with pytest.raises(ConnectionRefusedError):
            await ask(place.port, request_bytes())


async def test_for_a_while_new_deliveries_are_taken_and_each_is_told_to_go_elsewhere(
    writer: RecordingWriter,
) -> None:
    """A load balancer takes a moment to notice; what it sends meanwhile isn't lost."""
    async with public_port(writer, drain_delay=PATIENCE) as place, Client.to(place.port) as early:
        await until(lambda: len(connections(place)) == 1)
        draining = await begun(place)
        assert place.readiness.draining
        assert await place.readiness.problems() == [DRAINING]
        for reply in (await early.ask(request_bytes()), await ask(place.port, request_bytes())):
            assert (reply.status, reply.headers["connection"]) == (202, "close")
        await ends(early)
        draining.cancel()


async def test_requests_that_were_sent_at_once_are_all_answered_before_their_connection_ends(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    bodies = [b"1", b"2"]
    async with public_port(writer, drain_delay=PATIENCE) as place, Client.to(place.port) as client:
        await client.send(b"".join(map(request_bytes, bodies)))
        await writer.reached.wait()
        draining = await begun(place)
        writer.gate.set()
        first, second = [await client.reply() for _ in bodies]
        assert (first.status, second.status) == (202, 202)
        assert "connection" not in first.headers
        assert second.headers["connection"] == "close"
        await ends(client)
        draining.cancel()


async def test_what_was_sent_before_the_drain_is_answered_on_its_connection(
    writer: RecordingWriter,
) -> None:
    writer.gate.clear()
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.send(request_bytes(b"1"), request_bytes(b"2"))
        await writer.reached.wait()
        draining = await stopped(place)
        writer.gate.set()
        assert [(await client.reply()).status for _ in "12"] == [202, 202]
        await ends(client)
        await draining
    assert [delivery.body for delivery in writer.deliveries] == [b"1", b"2"]


def connected(port: int) -> socket.socket:
    """A connection that the system has taken, and the loop can't have seen: it stands still."""
    return socket.create_connection(("127.0.0.1", port))


async def answer_on(sock: socket.socket) -> Reply:
    """What comes on a connection until its end."""
    reader, writer = await asyncio.open_connection(sock=sock)
    reply = await Client(reader, writer).reply()
    assert await reader.read() == b""
    writer.close()
    return reply


async def test_a_delivery_that_the_system_has_taken_as_the_port_closes_is_answered(
    writer: RecordingWriter,
) -> None:
    """A socket that closes resets what is in its queue: its sender could not know what became."""
    async with public_port(writer) as place:
        sock = connected(place.port)
        sock.sendall(request_bytes())
        await place.listener.drain()
        assert (await answer_on(sock)).status == 202


async def test_a_connection_that_the_system_has_taken_as_the_port_closes_has_time_for_its_request(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place:
        sock = connected(place.port)
        draining = await stopped(place)
        await asyncio.sleep(FIRST_SECONDS / 10)  # what it takes through a network
        sock.sendall(request_bytes())
        assert (await answer_on(sock)).status == 202
        await draining


async def test_a_delivery_on_an_idle_connection_that_nobody_has_read_yet_is_answered(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place:
        sock = connected(place.port)
        sock.sendall(request_bytes(b"1"))
        await until(lambda: len(writer.deliveries) == 1)
        await until(lambda: all(each.is_idle for each in connections(place)))
        assert sock.recv(65536).startswith(b"HTTP/1.1 202")
        place.listener._connections.leaving = True
        sock.sendall(request_bytes(b"2"))  # while this loop stands still
        place.listener._connections.stop()
        assert (await answer_on(sock)).status == 202


@pytest.mark.skipif(sys.platform != "linux", reason="its filters of sockets are Linux's own")
async def test_while_the_last_come_in_no_new_connection_is_begun(writer: RecordingWriter) -> None:
    """Nor reset: who asks is not answered, and asks again once nobody listens."""
    async with public_port(writer) as place:
        last = asyncio.create_task(let_in_the_last(place.listener._sockets))
        await asyncio.sleep(0)
        with socket.socket() as late:
            late.settimeout(HANDSHAKE_SECONDS / 2)
            with pytest.raises(TimeoutError):
                late.connect(("127.0.0.1", place.port))
        await last


async def test_a_connection_that_comes_in_last_and_says_nothing_ends_soon(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place:
        place.listener._connections.stop()
        async with Client.to(place.port) as client:
            await ends(client)


async def test_headers_that_are_incomplete_have_their_own_time_out(writer: RecordingWriter) -> None:
    async with (
        public_port(writer, header_seconds=0.2) as place,
        Client.to(place.port) as client,
    ):
        await client.send(request_bytes()[:20])
        await until(lambda: any(each._timer for each in connections(place)))
        await place.listener.drain()
        check_refusal(await client.reply(), 408, "request_timeout")
        await ends(client)
    assert writer.deliveries == []


async def test_headers_that_come_in_two_parts_are_answered_however_late(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place, Client.to(place.port) as client:
        await client.ask(request_bytes(b"1"))
        await client.send(request_bytes(b"2")[:20])
        await until(lambda: any(each._timer for each in connections(place)))
        draining = await stopped(place)
        assert (await client.ask(request_bytes(b"2")[20:])).status == 202
        await draining


async def test_what_takes_too_long_is_cut_and_that_is_logged(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    writer.gate.clear()
    async with public_port(writer, drain_seconds=0.1) as place, Client.to(place.port) as client:
        await client.send(request_bytes())
        await writer.reached.wait()
        async with asyncio.timeout(PATIENCE):
            await place.listener.drain()
            line = log.lines[-1]
            assert (line["event"], line["level"], line["connections"]) == (
                "drain_cut_short",
                "warning",
                1,
            )
            await place.listener.close()
        await ends(client)
    assert writer.deliveries == []


async def test_an_end_without_a_drain_closes_whatever_is_open(writer: RecordingWriter) -> None:
    writer.gate.clear()
    async with (
        public_port(writer) as place,
        Client.to(place.port) as silent,
        Client.to(place.port) as begins,
        Client.to(place.port) as sends,
        Client.to(place.port) as waits,
    ):
        await begins.send(b"POST")
        await sends.send(request_bytes()[: -len(BODY)])
        await waits.send(request_bytes())
        await writer.reached.wait()
        async with asyncio.timeout(PATIENCE):
            await place.listener.close()
        for client in (silent, begins, waits):
            await ends(client)
        await sends.reader.read()


async def test_an_end_closes_whoever_was_turned_away_too(writer: RecordingWriter) -> None:
    async with (
        public_port(writer, connections=0) as place,
        Client.to(place.port) as too_many,
    ):
        check_refusal(await too_many.reply(), 503, "too_many_connections")
        async with asyncio.timeout(PATIENCE):
            await place.listener.close()
        await ends(too_many)


@pytest.mark.parametrize("host", ["192.0.2.1", "x" * 300])
async def test_a_host_that_is_not_here_is_a_setting_at_fault(
    writer: RecordingWriter, host: str
) -> None:
    with pytest.raises(SettingsError, match=rf"^INGRESS_HOST: .*, got '{host}'$"):
        await listen(writer, {"INGRESS_HOST": host, "INGRESS_PORT": "0"})


async def test_a_port_that_is_taken_is_a_setting_at_fault(writer: RecordingWriter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SettingsError, match=rf"^INGRESS_PORT: .*, got {port} \("):
            await listen(writer, {"INGRESS_PORT": port})


async def listen(writer: RecordingWriter, environ: dict[str, str]) -> None:
    """Listen where it can't be done."""
    settings = IngressSettings.from_environ(environ)
    receiver = Receiver(Known(endpoints()), writer, settings.limits)

    async def nothing() -> list[Problem]:
        return []

    async with listening(settings, receiver, Readiness(nothing)):
        raise AssertionError
