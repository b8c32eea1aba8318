"""What tests of the management commands share: a Sellfern, an ingress, and the commands."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from click.testing import CliRunner, Result

from deploy.sellfern import Sellfern, simulator
from deploy.sellfern.openapi import document
from deploy.sellfern.vendor import EVENTS
from ingress.cli import main
from ingress.http.listener import Readiness, listening
from ingress.http.receive import Receiver
from ingress.http.secret_use import SecretUse
from ingress.management.journal import Journal
from ingress.settings import IngressSettings
from shared.endpoints.endpoint import Endpoint
from shared.endpoints.file import EndpointsFile
from shared.program.admin import admin_site
from shared.program.listening import Address
from tests.ingress_support import RecordingWriter
from tests.log_support import captured_log

ADMIN: Final = Address("INGRESS_ADMIN", ("127.0.0.1",), 0)
KEY_A: Final = "sk_test_of_org_a"
KEY_B: Final = "sk_test_of_org_b"
KEY_WITHOUT_SCOPE: Final = "sk_test_of_a_reader"
PATIENCE: Final = 20.0
RELOAD: Final = 0.01

_Result = TypeVar("_Result")


class Thread:
    """A loop of its own, for what has to go on while a command runs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do something there; its result."""
        return self.begin(work).result(PATIENCE)

    def begin(self, work: Coroutine[Any, Any, _Result]) -> "Future[_Result]":
        """Begin something there."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @contextlib.contextmanager
    def open(self, manager: contextlib.AbstractAsyncContextManager[_Result]) -> Iterator[_Result]:
        """Keep something open there while a block runs."""
        opened = self.call(_enter(manager))
        try:
            yield opened
        finally:
            self.call(_leave(manager))

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


async def _enter(manager: contextlib.AbstractAsyncContextManager[_Result]) -> _Result:
    return await manager.__aenter__()


async def _leave(manager: contextlib.AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)


class Ingress:
    """An ingress in this process, which remembers what it has accepted."""

    def __init__(
        self, port: int, admin_port: int, writer: RecordingWriter, file: EndpointsFile
    ) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.admin_url = f"http://127.0.0.1:{admin_port}"
        self.writer = writer
        self._file = file

    def secrets(self, name: str) -> list[str]:
        """The secrets of an endpoint as they were last read."""
        return [secret.value.reveal() for secret in self._file.current[name].secrets]


@contextlib.asynccontextmanager
async def ingress(file: Path) -> AsyncIterator[Ingress]:
    """An ingress that reads an endpoints file again and again."""
    endpoints = EndpointsFile(file, {})
    endpoints.load()
    settings = IngressSettings.from_environ({"INGRESS_PORT": "0", "DRAIN_DELAY": "0"})
    writer = RecordingWriter()
    receiver = Receiver(endpoints, writer, settings.limits)

    async def no_problems() -> list[Any]:
        return []

    readiness = Readiness(no_problems)
    page = SecretUse(endpoints, receiver.verified)
    async with (
        endpoints.watching(RELOAD),
        admin_site(ADMIN, no_problems, routes=page.routes()) as admin_port,
        listening(settings, receiver, readiness) as listener,
    ):
        yield Ingress(listener.port, admin_port, writer, endpoints)


class Desk:
    """Where the commands are run: a folder, a Sellfern, an environment.

    Args:
        thread: where Sellfern runs.
        vendor: that Sellfern.
        folder: for the files.
    """

    def __init__(self, thread: Thread, vendor: Sellfern, folder: Path) -> None:
        self.thread = thread
        self.vendor = vendor
        self.file = folder / "endpoints.toml"
        self.journal = folder / ".sellfern" / "journal.json"
        self.environ = {
            "ENDPOINTS_FILE": str(self.file),
            "SELLFERN_API_URL": vendor.url,
            "SELLFERN_API_KEY": KEY_A,
            "SELLFERN_DEADLINE": "10s",
            "INGRESS_PUBLIC_URL": "https://hooks.example.com",
            "COLUMNS": "250",
        }

    def run(self, *arguments: str, text: str | None = None, **environ: str) -> Result:
        """Run a command."""
        env: dict[str, str | None] = {**self.environ, **environ}
        return CliRunner().invoke(main, arguments, env=env, input=text)

    def endpoints(self, *arguments: str, **options: Any) -> Result:
        """Run a command about endpoints."""
        return self.run("endpoints", *arguments, **options)

    def ok(self, *arguments: str, **options: Any) -> Result:
        """Run one that succeeds."""
        result = self.endpoints(*arguments, **options)
        assert result.exit_code == 0, result.output
        return result

    def rows(self, *arguments: str, **options: Any) -> list[dict[str, Any]]:
        """The JSON lines of one that succeeds."""
        result = self.ok(*arguments, "--json", **options)
        return [json.loads(line) for line in result.stdout.splitlines()]

    def learn(self) -> None:
        """Import Sellfern's OpenAPI document."""
        known = self.file.with_name("openapi.json")
        known.write_bytes(msgspec.json.encode(document(self.vendor.url, EVENTS)))
        result = self.run("reference", "import", str(known), "--yes")
        assert result.exit_code == 0, result.output

    def register(self, url: str, *, name: str = "acme", organization: str = "org_a") -> Any:
        """An endpoint that Sellfern has and the file knows; Sellfern's side of it."""
        secret = f"whsec_first_of_{name}"
        row = f'[[endpoint]]\nid = "{name}"\norganization_id = "{organization}"\n'
        before = self.file.read_text() if self.file.exists() else ""
        self.file.write_text(f'{before}{row}secrets = ["{secret}"]\n')
        self.file.chmod(0o600)
        full = f"{url}/webhooks/{name}"
        return self.vendor.endpoints.create(organization, full, ("order.updated",), secret=secret)

    def here(self, name: str = "acme") -> Endpoint:
        """An endpoint as the file has it."""
        return EndpointsFile(self.file, {}).load()[name]

    def secrets(self, name: str = "acme") -> dict[str, bool]:
        """The secrets of an endpoint in the file, and whether each has an end."""
        return {s.value.reveal(): s.until is not None for s in self.here(name).secrets}

    @property
    def pending(self) -> tuple[Any, ...]:
        """What the journal has no outcome of."""
        return Journal(self.journal).pending

    @property
    def work(self) -> dict[str, Any]:
        """What the journal has notes of."""
        if not self.journal.exists():
            return {}
        return dict(json.loads(self.journal.read_bytes())["work"])

    def keys(self) -> list[str]:
        """The different idempotency keys that Sellfern has seen, in order."""
        seen = (request.idempotency_key for request in self.vendor.requests)
        return list(dict.fromkeys(key for key in seen if key))


@contextlib.contextmanager
def desk(folder: Path, **knobs: Any) -> Iterator[Desk]:
    """A desk for the time of a block."""
    thread = Thread()
    try:
        keys = f"{KEY_A}:org_a", f"{KEY_B}:org_b", f"{KEY_WITHOUT_SCOPE}:org_a:orders:read"
        opening = simulator(*keys, **{"attempts": 3, "backoff": 0.01, **knobs})
        with captured_log("debug"), thread.open(opening) as vendor:
            yield Desk(thread, vendor, folder)
    finally:
        thread.close()


class Died(BaseException):
    """Stands for SIGKILL: nothing of this project catches it."""


class Death:
    """Ends a command at one of the points where its death would matter.

    The points are: between the write and the rename of a file, after the rename, before a request
    that changes something, and after its answer.

    Args:
        at: the number of the point, from 1.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0

    def point(self) -> None:
        """Pass a point, or die."""
        self.passed += 1
        if self.passed == self.at:
            self.die()

    def die(self) -> None:
        """Die."""
        raise Died

    def after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function with a point behind it."""

        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = function(*arguments, **options)
            self.point()
            return result

        return wrapped

    def around(self, attempt: Callable[..., Any]) -> Callable[..., Any]:
        """The same attempt with a point before and behind it, where it changes something."""

        async def wrapped(client: Any, request: Any, entry: Any, deadline: float) -> Any:
            if entry is None:
                return await attempt(client, request, entry, deadline)
            self.point()
            result = await attempt(client, request, entry, deadline)
            self.point()
            return result

        return wrapped
