"""Which setting is to blame for a port that can't be listened on."""

import errno
import socket

import pytest

from shared.listening import cannot_listen


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        (
            OSError(errno.EADDRINUSE, "in use"),
            "X_PORT: expected a port free to listen on, got 80 (address already in use)",
        ),
        (
            OSError(errno.EACCES, "no"),
            "X_PORT: expected a port free to listen on, got 80 (permission denied)",
        ),
        (
            OSError("odd"),
            "X_PORT: expected a port free to listen on, got 80 (it can't be listened on)",
        ),
        (
            OSError(errno.EADDRNOTAVAIL, "no"),
            "X_HOST: expected an address of this machine, got 'here'",
        ),
        (
            socket.gaierror(socket.EAI_NONAME, "unknown"),
            "X_HOST: expected an address of this machine, got 'here'",
        ),
        (
            UnicodeError("label empty or too long"),
            "X_HOST: expected an address of this machine, got 'here'",
        ),
    ],
)
def test_the_setting_at_fault_is_named(exc: OSError | UnicodeError, message: str) -> None:
    assert str(cannot_listen("X", "here", 80, exc)) == message
