"""Fixtures for every test: a real Redis server, a client of it, an endpoints file."""

import fcntl
import gc
import os
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from deploy.local.embedded_cluster import EmbeddedCluster, embedded_cluster
from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance import warm
from tests.bench import programs
from tests.in_memory import folder_in_memory
from tests.measuring import MEASURED_CASES, is_measured, unmeasured

# Where tests run in several processes, these tell the width of the terminal that pytest has; what a
# test starts has a terminal of its own, or none.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)

# A shell without job control starts what is in its background, as in `make test &`, with Ctrl-C
# ignored, and so would start all that the tests press it for.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# A busy machine is no failure of a property.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

# A project of its own, whose tests `tests/acceptance/test_wheel.py` runs where it is installed.
_TESTS: Final = Path(__file__).parent
_SHOP: Final = _TESTS / "examples"
collect_ignore = [_SHOP.name]


class StartRedis(Protocol):
    """Starts a server for one test alone, with the arguments of `EmbeddedRedis`."""

    def __call__(self, **options: Any) -> EmbeddedRedis:  # passed through
        """Start it; it ends with the test."""
        ...


class StartCluster(Protocol):
    """Starts a cluster for one test alone, with the arguments of `embedded_cluster`."""

    def __call__(self, primaries: int = 3, **options: Any) -> EmbeddedCluster:  # passed through
        """Start it; it ends with the test."""
        ...


def _in_memory(stack: ExitStack, **options: Any) -> EmbeddedRedis:  # passed through
    """A server whose files are in memory where there is room, and leave it with the stack.

    A server that is killed finds them again all the same. A disk may take a thousand times as long
    for a write, and longer where others write, for which tests that watch the clock have no time.
    """
    return EmbeddedRedis(**{"folder": folder_in_memory(stack), **options})


_CASES: Final = Counter[Any]()
"""How many cases of each test have begun; a file's run in one process."""


def _begun_elsewhere(process: int, processes: int) -> list[str]:
    """All files of tests, for each process from another one on.

    Where nothing is compiled yet, each would compile all of them: half a minute of a processor.
    So what one comes to last the others have compiled by then.
    """
    files = [str(path) for path in sorted(_TESTS.rglob("test_*.py")) if _SHOP not in path.parents]
    first = len(files) * process // processes
    return files[first:] + files[:first]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Measure what tests import in one of the processes: it is the same in all.

    All that is made meanwhile stays to the end. The collector, which would look at it again and
    again, took half of the time; and a twelfth of that of the tests of `tests/unit` later on.
    """
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    is_whole = session.config.args_source is pytest.Config.ArgsSource.TESTPATHS
    gc.disable()
    try:
        with nullcontext() if process == 0 else unmeasured():
            if is_whole and processes > 1:
                session.config.args = _begun_elsewhere(process, processes)
            return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have them in the same order in all processes."""
    items.sort(key=lambda item: item.path.parts)


@pytest.fixture(autouse=True, scope="module")
def _measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure the tests of a file, or don't."""
    with nullcontext() if is_measured(request.path) else unmeasured():
        yield


@pytest.fixture(autouse=True)
def _measured_case(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure the first cases of a test."""
    _CASES[request.function] += 1
    with nullcontext() if _CASES[request.function] <= MEASURED_CASES else unmeasured():
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[EmbeddedRedis]:
    """Give the server that all tests share, every write on disk before it answers."""
    with ExitStack() as stack:
        yield stack.enter_context(_in_memory(stack, appendfsync="always"))


@pytest.fixture
async def redis(redis_server: EmbeddedRedis) -> AsyncIterator[Redis]:
    """Give a client, replies as bytes, of the shared server after emptying it."""
    async with Redis.from_url(redis_server.url) as client:
        await client.flushall()
        yield client


@pytest.fixture
def fresh_redis_server() -> Iterator[StartRedis]:
    """Start servers that a test may stop, freeze or limit."""
    with ExitStack() as servers:

        def start(**options: Any) -> EmbeddedRedis:  # passed through
            return servers.enter_context(_in_memory(servers, **options))

        yield start


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[EmbeddedCluster]:
    """Give three primaries without replicas, which all tests share that harm none of them."""
    with ExitStack() as stack:
        yield stack.enter_context(embedded_cluster(folder=folder_in_memory(stack)))


@pytest.fixture
def fresh_cluster() -> Iterator[StartCluster]:
    """Start clusters whose nodes a test may stop, freeze or tell anything."""
    with ExitStack() as clusters:

        def start(primaries: int = 3, **options: Any) -> EmbeddedCluster:  # passed through
            options["folder"] = folder_in_memory(clusters)
            return clusters.enter_context(embedded_cluster(primaries, **options))

        yield start


@pytest.fixture
async def redis_cluster(shared_cluster: EmbeddedCluster) -> EmbeddedCluster:
    """Give the same after emptying it."""
    for node in shared_cluster.nodes:
        async with Redis.from_url(node.url) as client:
            await client.flushall()
    return shared_cluster


@pytest.fixture
def endpoints_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write the text of an endpoints file and give its path, always the same in one test."""

    def write(text: str) -> Path:
        path = tmp_path / "endpoints.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs executed: what the warm process has would be in their memory, too."""
    monkeypatch.setattr(warm, "suits", lambda *_: False)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork what the measurements start: how long that takes is no part of a test of theirs."""
    monkeypatch.setattr(programs, "popen", warm.popen)


@pytest.fixture
def usual_ports() -> Iterator[None]:
    """Let no other test have programs on the ports that they have where nobody says otherwise."""
    with Path(tempfile.gettempdir(), "sellfern-usual-ports.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
