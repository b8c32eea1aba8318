"""Runs the worker's event loop to the end of its main task, whatever a handler does to the loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvloop

from worker.pipeline.origins import make_task, own_context, raised_by
from worker.pipeline.work import Work

_LAST_SECONDS: Final = 0.5
"""What a handler left may take to end, after the worker has stopped."""

Broken = Callable[[BaseException, Work | None], None]
"""Told of what ended the loop, and of the event whose task it was, if that is known."""


def run(
    main: Callable[[], Coroutine[Any, Any, None]],
    *,
    broken: Broken,
    stopped: Callable[[], None],
) -> bool:
    """Run a coroutine function until it returns; whether all other tasks have ended then, too.

    asyncio lets ``SystemExit`` and ``KeyboardInterrupt`` of any task end the loop, and then ends
    all tasks. A task that a handler left must not do that to the others: the loop goes on, for as
    long as giving back what it holds takes.

    Args:
        main: the program.
        broken: called outside of the loop.
        stopped: the same, where somebody has called the loop's ``stop``.

    Raises:
        BaseException: whatever the program itself raises.
    """
    loop = uvloop.new_event_loop()
    loop.set_task_factory(make_task)
    asyncio.set_event_loop(loop)
    context = own_context()
    task = context.run(loop.create_task, main())
    while True:
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as exc:
            if task.done():
                raise
            broken(exc, raised_by(exc))
        except RuntimeError:
            if task.done():
                raise
            stopped()
        else:
            return loop.run_until_complete(_end_the_others())


async def _end_the_others() -> bool:
    """Cancel what handlers have left; whether nothing is left of it."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=_LAST_SECONDS)
    return all(task.done() for task in tasks)
