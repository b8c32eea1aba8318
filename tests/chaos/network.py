"""The network between the nodes of a cluster, by which one of them can be cut off.

It is a process of its own: nodes take each other for failed when whoever is between them is slow.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

_CHUNK: Final = 64 * 1024
_HERE: Final = "127.0.0.1"


@dataclass(eq=False, slots=True)
class _Link:
    """One connection from a node to another, with both its ends."""

    ends: set[str]
    writers: list[asyncio.StreamWriter]
    readers: list[asyncio.StreamReader]
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def fall_silent(self) -> None:
        """Pass nothing on any more; both sides take the other one for slow."""
        for pump in self.pumps:
            pump.cancel()

    def end(self) -> None:
        """End both sides."""
        self.fall_silent()
        for writer in self.writers:
            writer.transport.abort()


class Network:
    """Has what nodes send each other forwarded.

    Nodes listen on 127.0.0.1, where clients reach them past this. To each other they are known by
    addresses of their own, on which this listens, with the same ports; and they connect from these,
    by which this knows who does.
    """

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    @contextlib.asynccontextmanager
    async def forwarding(self) -> AsyncIterator[None]:
        """Forward for the time of a block, what has been added."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "tests.chaos.network")
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        self._process = process
        try:
            yield
        finally:
            process.kill()
            await process.wait()

    async def add(self, address: str, *ports: int) -> None:
        """Forward what is sent to the ports of a node that has this address for the others."""
        await self._tell("add", address, *map(str, ports))

    async def cut_off(self, *addresses: str) -> None:
        """Let nothing pass between these and the others; nobody is told."""
        await self._tell("cut", *addresses)

    async def heal(self) -> None:
        """Let all pass again; what was silent ends."""
        await self._tell("heal")

    async def _tell(self, *words: str) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(" ".join(words).encode() + b"\n")
        if not await process.stdout.readline():
            raise RuntimeError("the network between the nodes has ended")


class _Forwarder:
    """The other side of it."""

    def __init__(self) -> None:
        self._cut: set[str] = set()
        self._links: set[_Link] = set()
        self._servers: list[asyncio.Server] = []

    async def run(self) -> None:
        """Do as it is told, a line each, until nobody is there any more."""
        loop, told = asyncio.get_running_loop(), asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(told), sys.stdin)
        while line := await told.readline():
            match line.decode().split():
                case ["add", address, *ports]:
                    await self.add(address, *map(int, ports))
                case ["cut", *addresses]:
                    self.cut_off(*addresses)
                case ["heal"]:
                    self.heal()
            print("done", flush=True)  # noqa: T201  # whoever has told it waits for that

    async def add(self, address: str, *ports: int) -> None:
        """Forward what is sent to the ports of a node that has this address for the others."""
        for port in ports:

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port
            ) -> None:
                await self._serve(address, port, reader, writer)

            self._servers.append(await asyncio.start_server(serve, address, port))

    def cut_off(self, *addresses: str) -> None:
        """Let nothing pass between these and the others; nobody is told."""
        self._cut = set(addresses)
        for link in self._links:
            if not self._passes(link.ends):
                link.fall_silent()

    def heal(self) -> None:
        """Let all pass again; what was silent ends."""
        cut, self._cut = self._cut, set()
        for link in list(self._links):
            if link.ends & cut:
                self._over(link)

    def _passes(self, ends: set[str]) -> bool:
        return len(ends & self._cut) in {0, len(ends)}

    async def _serve(
        self, address: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        ends = {str(writer.get_extra_info("peername")[0]), address}
        link = _Link(ends, [writer], [reader])
        self._links.add(link)
        if self._passes(ends):
            try:
                up_reader, up_writer = await asyncio.open_connection(_HERE, port)
            except OSError:
                self._over(link)
                return
            link.writers.append(up_writer)
            link.readers.append(up_reader)
            for source, sink in ((reader, up_writer), (up_reader, writer)):
                link.pumps.append(asyncio.create_task(self._pump(link, source, sink)))
            if not self._passes(ends):  # by now
                link.fall_silent()

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while chunk := await reader.read(_CHUNK):
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        self._over(link)

    def _over(self, link: _Link) -> None:
        link.end()
        self._links.discard(link)


if __name__ == "__main__":
    asyncio.run(_Forwarder().run())
