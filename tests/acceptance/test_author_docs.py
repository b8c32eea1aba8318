"""Facts about the page for authors of handlers: what each of its sections has one write works."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance.pages import Program, Terminal, Typed, blocks, environment_of, programs

PAGE: Final = "worker/README.md"
PROGRAMS: Final = programs(PAGE)
MOST_LINES: Final = 15
"""Of a first test, with the command that runs it."""


@pytest.fixture
def terminal(tmp_path: Path, redis_server: EmbeddedRedis) -> Iterator[Terminal]:
    """A shell in a project that has the handlers and the endpoints of the README, and nothing."""
    project = tmp_path / "project"
    for language, name in (("python", "shop/hooks.py"), ("toml", "endpoints.toml")):
        (text,) = blocks("README.md", language)
        write(project / name, text)
    with Redis.from_url(redis_server.url) as redis:
        redis.flushall()
    environ = environment_of(tmp_path / "home") | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "REDIS_URL": redis_server.url,
        "ENDPOINTS_FILE": "endpoints.toml",
        "ACME_SECRET": "whsec_of_the_page",
        "WORKER_HANDLERS": "shop.hooks:handlers",
        "WORKER_ADMIN_PORT": "0",
    }
    with Terminal(project, environ, tmp_path) as opened:
        yield opened


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("program", PROGRAMS, ids=[each.title for each in PROGRAMS])
def test_a_section_does_what_it_says(program: Program, terminal: Terminal) -> None:
    for name, text in program.files.items():
        write(terminal.folder / name, text)
    # Where nobody is told what to type, a module of handlers can at least be imported.
    imported = [Typed(f"python {name}", "^$") for name in program.files if name.endswith(".py")]
    terminal.type_all(program.typed or imported)


def test_what_a_section_says_is_looked_for(terminal: Terminal) -> None:
    (tests,) = [each for each in PROGRAMS if each.title == "Tests"]
    first, *_ = tests.files
    broken = tests.files[first].replace('"status": "paid"}}', '"status": "open"}}')
    write(terminal.folder / first, broken)
    with pytest.raises(AssertionError, match="1 failed in"):
        terminal.type_all(tests.typed[:1])


FAILING: Final = """
import pytest
from worker import Handlers
from worker.testing import Handled, deliver

handlers = Handlers()


@handlers.on("*")
async def order_updated(event, organization):
    return event.data["sku"]  # where it fails


@pytest.mark.asyncio
async def test_it():
    result = await deliver(handlers, "order.updated", {})
    assert result.outcome == Handled()
"""


def test_a_test_that_fails_shows_where_its_handler_did(terminal: Terminal) -> None:
    write(terminal.folder / "test_it.py", FAILING)
    shown = r"""assert Failed\(.*KeyError\('sku'\)(?s:.*)Captured log call(?s:.*)in order_updated
    return event.data\["sku"\]  # where it fails"""
    with pytest.raises(AssertionError, match=shown):
        terminal.type_all([Typed("python -m pytest -q test_it.py", "")])


def test_a_first_test_is_short() -> None:
    (tests,) = [each for each in PROGRAMS if each.title == "Tests"]
    first, *_ = tests.files.values()
    assert len(first.splitlines()) + 1 <= MOST_LINES
