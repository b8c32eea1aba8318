"""Runs a program of an image as a runtime that is told to be strict would, without one.

It is the first process, has nobody's rights and none to gain, may write to /tmp alone, and has this
machine's network.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from tests.acceptance.process import Ended, Program, end_of
from tests.tools import tool

# Its own view of the system's mounts, which ends with it: nothing of it has to be taken back.
_ENTER: Final = """
root=$1 user=$2 folder=$3
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o size=16m tmpfs "$root/tmp"
if [ -n "$4" ]; then
    mount --bind "$4" "$root/etc/sellfern"
    mount -o remount,bind,ro "$root/etc/sellfern"
fi
mount -o remount,bind,ro "$root"
shift 4
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" \\
    env -i --chdir="$folder" "$@"
"""
_UNSHARED: Final = ("--mount", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True, slots=True)
class Image:
    """One that is to be run.

    Attributes:
        root: its files.
        settings: what it says of how.
    """

    root: Path
    settings: Mapping[str, Any]

    async def start(self, **environ: str) -> "Contained":
        """Start its program; it has to be stopped.

        Args:
            environ: variables; the folder that is to be at /etc/sellfern is ``MOUNTED``.
        """
        return Contained(await self._begin(self.settings["Cmd"], environ))

    async def run(self, *words: str, **environ: str) -> Ended:
        """Run a command in it to its end."""
        return await end_of(await self._begin(words, environ))

    async def _begin(self, words: tuple[str, ...] | list[str], environ: dict[str, str]) -> Process:
        mounted = environ.pop("MOUNTED", "")
        # As a runtime makes the place of a mount, whoever the image runs as.
        (self.root / "etc/sellfern").mkdir(exist_ok=True)
        told = dict(each.split("=", 1) for each in self.settings["Env"]) | environ
        return await asyncio.create_subprocess_exec(
            *map(str, (tool("unshare"), *_UNSHARED, tool("sh"), "-euc", _ENTER, "sh", self.root)),
            *(self.settings["User"], self.settings["WorkingDir"], mounted),
            *(f"{name}={value}" for name, value in told.items()),
            *(*self.settings["Entrypoint"], *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )


class Contained(Program):
    """A program of an image: signals go to it, not to what has started it."""

    @property
    def pid(self) -> int:
        """Its number out here; in there it is 1."""
        outer = self.process.pid
        (inner,) = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()
        return int(inner)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def ask(self, *words: str) -> Ended:
        """Run a command beside it, as a runtime does for a health check."""
        inside = ("--target", str(self.pid), "--mount", "--pid", "--root", "--wd")
        user = ("--setuid", "10001", "--setgid", "10001")
        process = await asyncio.create_subprocess_exec(
            *map(str, (tool("nsenter"), *inside, *user, *words)), stdout=PIPE, stderr=PIPE
        )
        return await end_of(process)

    async def stop(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()  # and with it what it has started
        await self.ended()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
