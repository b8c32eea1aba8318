"""Handlers that fork, and leave the child to whatever an event's data tells it."""

import asyncio
import multiprocessing
import os
import sys
import threading

import msgspec

from worker import Event, Handlers, Organization

handlers = Handlers()


class Script(msgspec.Struct):
    """What is to happen in the child.

    Attributes:
        act: what it does.
    """

    act: str = ""


@handlers.on("*")
async def act(event: Event[Script], organization: Organization) -> None:
    """Fork, unless there is nothing to do, and tell of the child's end."""
    await organization.state.increment("handled")
    if event.data.act == "terminate":
        process = multiprocessing.get_context("fork").Process(target=threading.Event().wait)
        process.start()
        process.terminate()
        await asyncio.to_thread(process.join)
        organization.log.info("child_ended", code=process.exitcode)
    elif event.data.act:
        child = os.fork()
        if child == 0:
            await _do(event.data.act)
            return
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        organization.log.info("child_ended", code=os.waitstatus_to_exitcode(status))


async def _do(act: str) -> None:
    match act:
        case "await":
            await asyncio.get_running_loop().create_future()
        case "task":
            await asyncio.sleep(0)
        case "exit":
            sys.exit(3)
        case "raise":
            raise KeyError("as told")
        case "return":
            return
