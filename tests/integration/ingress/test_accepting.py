"""Facts about connections that wait for the port, and how soon they are taken."""

import asyncio
import socket

from ingress.http.listener import ACCEPTED_AT_ONCE
from tests.ingress_support import Client, RecordingWriter, request_bytes
from tests.integration.ingress.public_port import connections, public_port, until


def waiting(port: int, count: int) -> list[socket.socket]:
    """Connections that this loop, which stands still meanwhile, hasn't taken."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


async def test_those_that_wait_are_taken_in_a_few_turns_of_the_loop(
    writer: RecordingWriter,
) -> None:
    async with public_port(writer) as place:
        clients = waiting(place.port, 3 * ACCEPTED_AT_ONCE)
        for _ in range(12):
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
