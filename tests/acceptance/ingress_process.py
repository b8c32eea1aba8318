"""The ingress as a process."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from tests.acceptance.process import ROOT, SECRET, Program
from tests.ingress_support import Reply, ask, request_bytes


class IngressProcess(Program):
    """A running ingress."""

    @property
    def port(self) -> int:
        """Where deliveries come in."""
        (line,) = (line for line in self.lines if line["event"] == "ingress_listening")
        return int(line["port"])

    async def deliver(self, body: bytes, *, endpoint: str = "acme", secret: str = SECRET) -> Reply:
        """Deliver a body over a connection of its own, signed; the answer."""
        return await ask(self.port, delivery(body, endpoint=endpoint, secret=secret))


def delivery(body: bytes, *, endpoint: str = "acme", secret: str = SECRET) -> bytes:
    """A signed delivery as it goes over the wire."""
    return request_bytes(body, path=f"/webhooks/{endpoint}", secret=secret)


@contextlib.asynccontextmanager
async def ingress(
    environ: Mapping[str, str], *, folder: Path = ROOT
) -> AsyncIterator[IngressProcess]:
    """An ingress that listens, ended with the block; started from its source's folder."""
    program = await IngressProcess.begin("ingress", environ, folder)
    try:
        await program.logged("ingress_listening")
        yield program
    finally:
        await program.stop()
