"""What holds for every test of the public port: both event loops, no surprise, no log lost."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
import uvloop

from tests.ingress_support import RecordingWriter
from tests.log_support import CapturedLog, captured_log


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run each test on Python's own loop and on the one that the ingress runs on."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
async def surprises() -> AsyncIterator[list[Mapping[str, Any]]]:
    """Fail a test in which an exception reached the loop, where nobody handles it."""
    seen: list[Mapping[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
    yield seen
    assert seen == []


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    """Give what is logged."""
    with captured_log("debug") as captured:
        yield captured


@pytest.fixture
def writer() -> RecordingWriter:
    """Give the queue behind the port."""
    return RecordingWriter()
