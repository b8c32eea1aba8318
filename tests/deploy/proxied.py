"""The shipped proxy as a process, in front of ingresses on loopback."""

import asyncio
import contextlib
import re
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.deploy.kubernetes_objects import DEPLOY
from tests.tools import tool

HOSTS: Final = ("127.0.0.2", "127.0.0.3")
"""One for each ingress, as pods and containers have: so all have the ports of the configuration."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where each ingress takes deliveries, and where its probes answer."""

    deliveries: int
    admin: int


def haproxy(folder: Path, port: int, ports: Ports) -> list[str]:
    """HAProxy as it is shipped, but for where it finds the ingresses: there is no DNS here."""
    text = (DEPLOY / "proxy" / "haproxy.cfg").read_text()
    text = text.replace("bind :8080", f"bind 127.0.0.1:{port}")
    text = text.replace("check port 9101", f"check port {ports.admin}")
    text = re.sub(r"resolvers container\n(    .*\n)+", "", text)
    servers = "\n".join(
        f"    server ingress-{number} {host}:{ports.deliveries}"
        for number, host in enumerate(HOSTS, 1)
    )
    text, replaced = re.subn(r"    server-template ingress- .*", servers, text)
    assert replaced == 1
    shutil.copy(DEPLOY / "proxy" / "trusted.lst", folder)
    configuration = folder / "haproxy.cfg"
    configuration.write_text(text)
    return [str(tool("haproxy")), "-db", "-f", str(configuration)]


@contextlib.asynccontextmanager
async def program(*words: str, stdout: int = DEVNULL) -> AsyncIterator[Process]:
    """Any program, ended with the block."""
    process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=stdout)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def is_open(port: int) -> bool:
    """Whether somebody listens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
