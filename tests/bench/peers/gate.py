"""What every measured program shares: what it is told, and the signal to begin."""

import os
import sys
import time
from pathlib import Path


def redis_url() -> str:
    """Where Redis is."""
    return os.environ["REDIS_URL"]


def concurrency() -> int:
    """How many jobs one worker runs at once, where that can be set."""
    return int(os.environ["BENCH_CONCURRENCY"])


def body() -> str:
    """What each job carries: as many bytes as an event of ours."""
    return "x" * int(os.environ["BENCH_BODY_BYTES"])


def command() -> tuple[str, int]:
    """The verb that the program was started with, and its number: ``enqueue 2000``, ``work 1``."""
    verb, number = sys.argv[1:]
    return verb, int(number)


def wait() -> None:
    """Say that this process could begin, and wait until all of them are told to.

    The start of the interpreter and its imports stay out of every measurement this way.
    """
    folder = Path(os.environ["BENCH_GATE"])
    (folder / f"ready-{os.getpid()}").touch()
    while not (folder / "open").exists():
        time.sleep(0.001)
