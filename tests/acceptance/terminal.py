"""A command on a terminal, as a person sees it."""

import asyncio
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Mapping

from tests.acceptance.process import ROOT


async def seen(module: str, *arguments: str, environ: Mapping[str, str], columns: int) -> str:
    """What a command writes to a terminal of that width; it has to succeed."""
    return await asyncio.to_thread(
        _seen, [sys.executable, "-m", module, *arguments], environ, columns
    )


def _seen(words: list[str], environ: Mapping[str, str], columns: int) -> str:
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (40, columns))
        process = subprocess.Popen(
            words,
            cwd=ROOT,
            env={**environ, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
    finally:
        os.close(theirs)
    try:
        text = _read_all(ours)
    finally:
        os.close(ours)
    assert process.wait() == 0, text
    return text.replace("\r\n", "\n")


def _read_all(terminal: int) -> str:
    """Read until the other side has closed it, which Linux tells by an error."""
    pieces = []
    try:
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    except OSError:
        pass
    return b"".join(pieces).decode()
