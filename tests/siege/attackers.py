"""What an outsider may do to the public port, and says on each of his connections."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from tests.siege.line import Line

MIB: Final = 1024 * 1024
_SMALL: Final = 300
_FALSE: Final = "X-Sellfern-Signature: " + "0" * 64

Conversation = Callable[[Line], Awaitable[None]]
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

    async def say(line: Line) -> None:
        await line.send(raw)
        await line.read()

    return say


async def _nothing(line: Line) -> None:
    await line.read()


def _then_nothing(raw: bytes) -> Conversation:
    async def say(line: Line) -> None:
        await line.send(raw)
        while await line.read():
            pass

    return say


def over_and_over(make: Callable[[], bytes]) -> Conversation:
    """Ask as soon as there is an answer to what was asked before."""

    async def say(line: Line) -> None:
        while True:
            await line.send(make())
            if not await line.read():
                return

    return say


def _over_and_over(raw: bytes) -> Conversation:
    return over_and_over(lambda: raw)


async def _trickling(line: Line) -> None:
    await line.send(_head(f"Content-Length: {MIB}", _FALSE))
    while not line.is_closing:
        await line.send(b"x")
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
