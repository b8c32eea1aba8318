"""A thread that nobody waits for."""

import asyncio
import threading

import pytest

from shared.files.daemon_thread import in_daemon_thread


async def test_what_the_function_gives_or_raises_is_given_or_raised() -> None:
    assert await in_daemon_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 // 0)


def test_the_loop_ends_though_the_function_does_not() -> None:
    go, gone = threading.Event(), threading.Event()

    def hang() -> None:
        assert threading.current_thread().daemon  # nor does the process wait for it
        go.wait(30)
        gone.set()

    async def leave() -> None:
        task = asyncio.create_task(in_daemon_thread(hang))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(leave())
    assert not gone.is_set()
    go.set()
    assert gone.wait(30)  # and it ends without a complaint, though the loop is away
