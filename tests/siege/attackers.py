"""What an outsider may do to the public port; each runs as a process, bounded in count and time."""

import asyncio
import contextlib
import resource
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import uvloop

MIB: Final = 1024 * 1024
_SMALL: Final = 300
_FALSE: Final = "X-Sellfern-Signature: " + "0" * 64
_READ: Final = 4096
_PAUSE: Final = 0.05  # seconds before a connection that has ended is made anew

Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What is said on one connection, again and again."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One way to attack.

    Attributes:
        about: for the table.
        connections: at once.
        conversation: on each.
    """

    about: str
    connections: int
    conversation: Conversation


def _head(*fields: str, path: str = "/webhooks/acme") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: siege", *fields, "", ""]
    return "\r\n".join(lines).encode()


def _all_but_the_last_byte(signature: str) -> Conversation:
    raw = _head(f"Content-Length: {MIB}", signature) + b"x" * (MIB - 1)

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        await reader.read(_READ)

    return say


async def _nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(_READ)


def _then_nothing(raw: bytes) -> Conversation:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        while await reader.read(_READ):
            pass

    return say


def _over_and_over(raw: bytes) -> Conversation:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(raw)
            if not await reader.read(_READ):
                return

    return say


async def _trickling(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(_head(f"Content-Length: {MIB}", _FALSE))
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.1)


def _small(*fields: str, path: str = "/webhooks/acme") -> bytes:
    return _head(f"Content-Length: {_SMALL}", *fields, path=path) + b"x" * _SMALL


_CHUNKS: Final = _head("Transfer-Encoding: chunked", _FALSE) + b"1\r\nx\r\n" * MIB
_MORE_HEAD: Final = b"".join(b"X-%d: %b\r\n" % (number, b"x" * 4000) for number in range(4))
_LONG_HEAD: Final = _head(*(f"X-{number}: {'x' * 4000}" for number in range(7)))[:-2]

ATTACKS: Final = {
    "unsigned bodies": Attack(
        "1 MiB but for a byte, no signature", 70, _all_but_the_last_byte("X-None: x")
    ),
    "falsely signed bodies": Attack(
        "the same with a false signature", 80, _all_but_the_last_byte(_FALSE)
    ),
    "400 of them": Attack("the same, more of them", 400, _all_but_the_last_byte(_FALSE)),
    "silence": Attack("connections that say nothing", 4096, _nothing),
    "idle": Attack("one 404, and then nothing", 4096, _then_nothing(_small(path="/"))),
    "a byte each": Attack(
        "one byte of a body, and then nothing",
        4096,
        _then_nothing(_head("Content-Length: 1000", _FALSE) + b"x"),
    ),
    "tiny chunks": Attack("1 MiB in chunks of one byte", 64, _over_and_over(_CHUNKS)),
    "heads": Attack("heads of 28 KiB without an end", 4000, _then_nothing(_LONG_HEAD)),
    "heads behind requests": Attack(
        "one 404, and 44 KiB of a head behind it",
        2050,
        _then_nothing(_small(path="/") + _LONG_HEAD + _MORE_HEAD),
    ),
    "trickling": Attack("a byte of a body every 100 ms", 1000, _trickling),
    "false signatures, 64": Attack(
        "small deliveries, falsely signed", 64, _over_and_over(_small(_FALSE))
    ),
    "false signatures, 1,000": Attack("the same", 1000, _over_and_over(_small(_FALSE))),
    "unknown endpoints, 1,000": Attack(
        "small deliveries to nobody", 1000, _over_and_over(_small(_FALSE, path="/webhooks/none"))
    ),
}
"""By name; all of them without a secret."""


async def _attacker(port: int, conversation: Conversation) -> None:
    """Hold one connection, and make another whenever it ends."""
    while True:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await conversation(reader, writer)
            finally:
                writer.transport.abort()
        await asyncio.sleep(_PAUSE)


async def attack(name: str, port: int, seconds: float) -> None:
    """Attack for a time."""
    chosen = ATTACKS[name]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as tasks:
            for _ in range(chosen.connections):
                tasks.create_task(_attacker(port, chosen.conversation))


def _raise_file_limit() -> None:
    """Let this process have as many connections as the system allows it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    _raise_file_limit()
    uvloop.run(attack(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
