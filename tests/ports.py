"""Ports for what a test is about to start."""

import contextlib
import socket


def free_ports(number: int) -> list[int]:
    """So many ports that are free on every loopback address for now."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in opened:
            each.bind(("0.0.0.0", 0))  # noqa: S104  for a moment, and nothing listens
        return [int(each.getsockname()[1]) for each in opened]


def free_port() -> int:
    """A port that nobody listens on."""
    (port,) = free_ports(1)
    return port


def in_cluster_mode() -> dict[str, str]:
    """What a Redis is told that is to be a node of a cluster.

    Its second port is 10,000 behind the first one where nobody says otherwise, and so beyond the
    last that there is for one free port of five.
    """
    return {"cluster-enabled": "yes", "cluster-port": str(free_port())}
