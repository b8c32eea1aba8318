"""A pytest plugin: every program that a test starts comes to Redis as its user of deploy/redis.

    python -m pytest tests/acceptance -p tests.deploy.as_users

The tests themselves stay the default user, who may do everything.
"""

import asyncio
import re
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import pytest
import redis

from deploy.local.embedded_redis import EmbeddedRedis
from tests.acceptance import earlier, warm
from tests.acceptance.process import ROOT
from tests.deploy.deployed_redis import REDIS, password

Start = Callable[..., Coroutine[Any, Any, Process]]

_URL: Final = re.compile(r"(redis(?:\+cluster)?://)(127\.0\.0\.1:.*)")
_rules: Final = [line.split() for line in (REDIS / "users.acl").read_text().splitlines()]
_as_user: Final[list[str]] = []
_EARLIER: Final = "earlier-"
"""Before the name of a user whose program is of the earlier version."""


def _both(user: str, rules: list[str]) -> list[str]:
    """The rights of this version and of the earlier one, as CHANGELOG.md has them put together."""
    if user not in earlier.users():
        return rules
    root, bracket, selector = earlier.users()[user].partition("(")
    return [*rules, f"({root.strip()})", *([bracket + selector] if bracket else [])]


def let_users_in(server: EmbeddedRedis) -> None:
    """Make the users of deploy/redis, each with its password."""
    # One that a test has given a password of its own has its own users.
    with redis.Redis(port=server.port) as admin, suppress(redis.AuthenticationError):
        for _, user, *rules in _rules:
            if user != "default":
                for name, given in ((user, rules), (_EARLIER + user, _both(user, rules))):
                    admin.execute_command("ACL", "SETUSER", name, *given, f">{password(name)}")


def _user_of(words: tuple[Any, ...], folder: object) -> str | None:
    """Who a command line is: the ingress, a worker, or an operator with one of its commands."""
    version = "" if folder in {None, ROOT} else _EARLIER
    match words:
        case (_, "-m", "ingress", *_):
            return f"{version}ingress"
        case (
            (_, "-m", "worker")
            | (_, "-m", "worker", "run", *_)
            | (_, "-m", "worker", "partitions", "move" | "migrate", *_)
        ):
            return f"{version}worker"
        case (_, "-m", "worker", *_):
            return f"{version}operator"
    return None


@pytest.fixture(autouse=True, scope="session")
def _as_users() -> Any:
    """Change how servers and programs start, for the whole run."""
    start = EmbeddedRedis.start

    def started(server: EmbeddedRedis) -> None:
        start(server)
        let_users_in(server)

    def as_user(begin: Start) -> Start:
        async def begun(*words: Any, **options: Any) -> Process:
            environ, user = options.get("env") or {}, _user_of(words, options.get("cwd"))
            url = _URL.fullmatch(environ.get("REDIS_URL", ""))
            if user is not None and url is not None:
                login = f"{user}:{password(user)}@"
                options["env"] = {**environ, "REDIS_URL": f"{url[1]}{login}{url[2]}"}
                _as_user.append(user)
            return await begin(*words, **options)

        return begun

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EmbeddedRedis, "start", started)
        # What the warm process can't begin is executed, as its user by then.
        for where, name in ((asyncio, "create_subprocess_exec"), (warm, "start")):
            patch.setattr(where, name, as_user(getattr(where, name)))
        yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what this process has started to the one that writes the summary."""
    output = getattr(session.config, "workeroutput", None)  # only one of pytest-xdist's has it
    if output is not None:
        output["as_user"] = _as_user


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist has started."""
    # One that crashed hands nothing over.
    _as_user.extend(getattr(node, "workeroutput", {}).get("as_user", []))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how often that was so, since none would prove nothing."""
    counted = ", ".join(f"{user}: {_as_user.count(user)}" for user in sorted(set(_as_user)))
    terminalreporter.write_line(f"programs started as users of deploy/redis: {counted or 'none'}")
