"""Why a program can't listen where its settings say."""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Final

from shared.errors import SettingsError

_HOST_AT_FAULT: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL})


@contextlib.contextmanager
def blaming_settings(prefix: str, host: str, port: int) -> Iterator[None]:
    """Begin to listen within this block.

    Raises:
        SettingsError: the system says no; the message is as in `cannot_listen`.
    """
    try:
        yield
    except (OSError, UnicodeError) as exc:
        raise cannot_listen(prefix, host, port, exc) from exc


def cannot_listen(prefix: str, host: str, port: int, exc: OSError | UnicodeError) -> SettingsError:
    """Say which setting of ``{prefix}_HOST`` and ``{prefix}_PORT`` is at fault.

    Args:
        prefix: what the names of both settings start with, such as ``INGRESS``.
        host: the value of the one.
        port: the value of the other.
        exc: what the system said; a UnicodeError where the host can't be a name at all.
    """
    if isinstance(exc, UnicodeError | socket.gaierror) or exc.errno in _HOST_AT_FAULT:
        return SettingsError(f"{prefix}_HOST", "an address of this machine", repr(host))
    why = os.strerror(exc.errno).lower() if exc.errno else "it can't be listened on"
    return SettingsError(f"{prefix}_PORT", "a port free to listen on", f"{port} ({why})")
