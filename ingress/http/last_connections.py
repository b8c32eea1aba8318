"""Stops listening without failing a connection that the system has taken for us already.

Closing a socket that listens resets every connection in its queue: established for its sender, and
not yet ours. A sender whose request was on its way then sees neither an answer nor a refusal, and a
proxy must not send it elsewhere. So the system is told to take no more first, and who is in its
queue by then is let in before the socket is closed.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from typing import Final

HANDSHAKE_SECONDS: Final = 0.25
"""How long connections that are being established have for it. Who asks meanwhile is not answered,
asks again after a second, and is refused then as by any port on which nobody listens."""

_SO_ATTACH_FILTER: Final = 26  # Linux's; Python doesn't name it
_FLAGS: Final = 13  # the byte of a TCP header
_SYN, _ACK = 0x02, 0x10

# Classic BPF, as in the kernel's Documentation/networking/filter: operation, jumps, argument.
_DROP_NEW: Final = (
    (0x30, 0, 0, _FLAGS),  # load that byte
    (0x54, 0, 0, _SYN | _ACK),  # keep these bits of it
    (0x15, 0, 1, _SYN),  # a SYN alone asks for a new connection; else over the next line
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # take it whole
)


async def let_in_the_last(sockets: Sequence[socket.socket]) -> None:
    """Have the system take no new connection, and give those that it is taking time for it.

    Where the system can't do that, as outside Linux, one that is established after this and before
    the sockets are closed is reset.

    Args:
        sockets: which listen, by the running loop.
    """
    taken = [_take_no_more(each) for each in sockets]  # of all, also where one can't
    if all(taken):
        await asyncio.sleep(HANDSHAKE_SECONDS)


def has_unread(transport: asyncio.BaseTransport | None) -> bool:
    """Whether something has come on a connection that nobody has read yet."""
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is None:
        return False
    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        (waiting,) = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0" * 4))
        return bool(waiting)
    return False


def _take_no_more(sock: socket.socket) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    lines = b"".join(struct.pack("HBBI", *line) for line in _DROP_NEW)
    program = ctypes.create_string_buffer(lines)
    described = struct.pack("HP", len(_DROP_NEW), ctypes.addressof(program))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
    except OSError:  # a sandbox may not know it
        return False
    return True
