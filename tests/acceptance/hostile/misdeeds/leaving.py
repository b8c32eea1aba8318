"""Handlers that end the process at once: nobody can say anything more, and no neighbour pays."""

import ctypes
import os
import signal

from tests.acceptance.hostile.row import Family, Order, crashed
from worker import Event, Organization

family = Family("leaving", own=True, twice=True, settings={"LEASE_SECONDS": "1s"}, patience=40.0)


@family.row(crashed(), leaves=(-signal.SIGKILL,))
async def kills_itself(event: Event[Order], organization: Organization) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@family.row(crashed(), leaves=(0,))
async def leaves_without_a_word(event: Event[Order], organization: Organization) -> None:
    os._exit(0)


@family.row(crashed(), leaves=(-signal.SIGSEGV,))
async def touches_memory_that_is_not_there(event: Event[Order], organization: Organization) -> None:
    ctypes.string_at(0)


@family.row(crashed(), leaves=(-signal.SIGALRM,))
async def sets_an_alarm(event: Event[Order], organization: Organization) -> None:
    signal.raise_signal(signal.SIGALRM)
