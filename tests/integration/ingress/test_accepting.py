"""Facts about connections that wait for the port: how soon they are taken, and what prevents it."""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from ingress.acceptor import ACCEPTED_AT_ONCE
from tests.ingress_support import Client, RecordingWriter, request_bytes
from tests.integration.ingress.public_port import connections, public_port, until
from tests.log_support import CapturedLog


def waiting(port: int, count: int) -> list[socket.socket]:
    """Connections that this loop, which stands still meanwhile, hasn't taken."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


async def test_those_that_wait_are_taken_in_a_few_turns_of_the_loop(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place:
        clients = waiting(place.port, 3 * ACCEPTED_AT_ONCE)
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(connections(place)) == len(clients)
        for client in clients:
            client.close()


async def test_all_that_wait_as_the_port_closes_are_answered(writer: RecordingWriter) -> None:
    async with public_port(writer) as place:
        clients = waiting(place.port, ACCEPTED_AT_ONCE + 1)
        for client in clients:
            client.sendall(request_bytes())
        await place.listener.drain()
        for sock in clients:
            reader, to = await asyncio.open_connection(sock=sock)
            assert (await Client(reader, to).reply()).status == 202
            to.close()


async def test_one_that_has_ended_before_it_is_taken_hurts_nobody(writer: RecordingWriter) -> None:
    async with public_port(writer) as place:
        gone, stays = waiting(place.port, 2)
        gone.close()
        await until(lambda: len(connections(place)) == 1)
        stays.close()


@contextmanager
def no_file_left() -> Iterator[None]:
    """This process can open none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_where_no_file_is_left_connections_wait_until_there_is(
    writer: RecordingWriter, log: CapturedLog
) -> None:
    async with public_port(writer) as place:
        (client,) = waiting(place.port, 1)
        with no_file_left():
            await until(lambda: "accept_failed" in log.text)
            assert not connections(place)
        await until(lambda: len(connections(place)) == 1)
        assert log.text.count("accept_failed") < 10
        client.close()
