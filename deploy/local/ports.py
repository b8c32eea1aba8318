"""Ports for programs that are about to start: the usual ones, or the next that are free."""

import contextlib
from collections.abc import Mapping
from typing import Final

from shared.program.listening import Address, open_sockets, port_of

HOST: Final = "127.0.0.1"
_OTHERS: Final = 99
"""How many behind a taken one may stand in for it."""


def free_ports(usual: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name; somebody else may take one before its program does.

    Args:
        usual: by name, where people expect it.

    Raises:
        SettingsError: all are taken.
    """
    found: dict[str, int] = {}
    with contextlib.ExitStack() as held:  # all at once, or two of them might be the same
        for name, port in usual.items():
            sockets = open_sockets(Address(name, (HOST,), port, port + _OTHERS))
            for each in sockets:
                held.enter_context(each)
            found[name] = port_of(sockets)
    return found
