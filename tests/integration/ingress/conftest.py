"""What holds for every test of the public port: both event loops, requests whole and in pieces."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import uvloop

from ingress.http import ending_connection
from tests.ingress_support import Client, RecordingWriter
from tests.integration.ingress.segments import MANY, Arrivals
from tests.log_support import CapturedLog, captured_log


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark of the tests that are about how their bytes come."""
    config.addinivalue_line("markers", "whole: the request isn't cut, for the reason that is given")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test with its requests in one, two and many pieces."""
    if "segments" in metafunc.fixturenames:
        whole = metafunc.definition.get_closest_marker("whole")
        numbers = [1] if whole else [1, 2, MANY]
        metafunc.parametrize("segments", numbers, ids=lambda number: f"in {number}", indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run a test on Python's own loop in as many pieces as there are, and no others.

    The programs run on the other one. How bytes come is told by what is above both.
    """
    fewer = [each for each in items if _is_in_fewer_pieces(each)]
    if fewer:
        config.hook.pytest_deselected(items=fewer)
        items[:] = [each for each in items if not _is_in_fewer_pieces(each)]


def _is_in_fewer_pieces(item: pytest.Item) -> bool:
    is_here = item.path.is_relative_to(Path(__file__).parent)
    if not (is_here and isinstance(item, pytest.Function) and "asyncio-" in item.name):
        return False
    return (
        item.get_closest_marker("whole") is None
        and "segments" in item.fixturenames
        and item.callspec.params.get("segments") in (1, 2)
    )


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


@pytest.fixture(autouse=True)
def segments(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of pieces that what `Client.send` gets is cut into."""
    number = int(getattr(request, "param", 1))
    if number > 1:
        arrivals = Arrivals()
        arrivals.watch(monkeypatch)

        async def send(client: Client, *parts: bytes) -> None:
            for part in parts:
                await arrivals.send(client, part, number)

        monkeypatch.setattr(Client, "send", send)
    return number


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    """Give what is logged."""
    with captured_log("debug") as captured:
        yield captured


@pytest.fixture
def writer() -> RecordingWriter:
    """Give the queue behind the port."""
    return RecordingWriter()


@pytest.fixture(autouse=True)
def told_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have whoever is sent away unanswered told soon, for the sake of the tests' own time."""
    monkeypatch.setattr(ending_connection, "LATER_SECONDS", 0.02)
