"""The endpoints file while a program runs: read again by content, replaced only by a valid one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from shared import metrics
from shared.endpoints import Endpoints
from shared.endpoints_text import AllSecrets, FetchSecrets, joined, no_secrets, read_tables
from shared.errors import SettingsError
from shared.logs import get_logger
from shared.plain_text import decoded, no_text
from shared.secret_source import ReadSecretFile, SecretFetcher

INTERVAL: Final = 0.5
"""Seconds between two looks at the files."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one look at the files found.

    Attributes:
        fingerprint: the digests of the file and of every secret file that it names; None stands
            for a file that couldn't be read.
        result: the endpoints, or what is wrong.
    """

    fingerprint: Mapping[Path, bytes | None]
    result: Endpoints | SettingsError


class EndpointsFile:
    """The endpoints as the file last said validly.

    The files are compared by content, because Kubernetes swaps them behind a link, which changes
    no time stamp. A change counts once two looks in a row have seen it, so that a file which an
    editor is just writing is not taken half.

    Args:
        path: the file.
        environ: where ``{ env = "…" }`` secrets are.
        verifies: whether the secrets are needed. A worker verifies nothing, so it asks for none,
            and they needn't be where it runs.
    """

    def __init__(self, path: Path, environ: Mapping[str, str], *, verifies: bool = True) -> None:
        self._path = path
        self._environ = environ
        self._verifies = verifies
        self._current: Endpoints | None = None
        self._applied: Mapping[Path, bytes | None] = {}
        self._seen: Mapping[Path, bytes | None] = {}
        self._refused: SettingsError | None = None

    @property
    def current(self) -> Endpoints:
        """The endpoints to go by now; `load` has to come first."""
        if self._current is None:
            raise RuntimeError("EndpointsFile.load comes before EndpointsFile.current")
        return self._current

    @property
    def refused(self) -> SettingsError | None:
        """What is wrong with the file as it is now, while `current` still is an older one."""
        return self._refused

    def load(self) -> Endpoints:
        """Read the file for the first time.

        Raises:
            SettingsError: it can't be read, or something in it is wrong.
        """
        reading = self._read()
        if isinstance(reading.result, SettingsError):
            raise reading.result
        self._current = reading.result
        self._applied = self._seen = reading.fingerprint
        return reading.result

    @contextlib.asynccontextmanager
    async def watching(self, interval: float = INTERVAL) -> AsyncIterator[None]:
        """Look at the files again every ``interval`` seconds while the block runs."""
        task = asyncio.create_task(self._watch(interval), name="endpoints-file")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            try:
                # In a thread: a file system that hangs must not hold the requests up.
                self._consider(await asyncio.to_thread(self._look))
            except Exception:  # noqa: BLE001  # a watch that ended would keep removed secrets alive
                _log.exception("endpoints_watch_failed")

    def _look(self) -> _Reading | None:
        """Read anew what has changed and then stayed so for two looks, else nothing."""
        fingerprint = {path: _digest_of(path) for path in self._seen}
        settled = fingerprint == self._seen
        self._seen = fingerprint
        if not settled or fingerprint == self._applied:
            return None
        return self._read()

    def _consider(self, reading: _Reading | None) -> None:
        if reading is None:
            return
        self._applied = self._seen = reading.fingerprint
        if isinstance(reading.result, SettingsError):
            self._refuse(reading.result)
        else:
            self._apply(reading.result)

    def _apply(self, endpoints: Endpoints) -> None:
        self._current = endpoints
        self._refused = None
        metrics.ENDPOINTS_RELOADS.labels("applied").inc()
        _log.info(
            "endpoints_reloaded",
            endpoints=len(endpoints),
            organizations=len(endpoints.organizations()),
        )

    def _refuse(self, error: SettingsError) -> None:
        self._refused = error
        metrics.ENDPOINTS_RELOADS.labels("refused").inc()
        _log.error("endpoints_refused", error=str(error), kept=len(self.current))

    def _read(self) -> _Reading:
        fingerprint: dict[Path, bytes | None] = {}

        def read(path: Path) -> str:
            fingerprint[path] = None
            content = path.read_bytes()
            fingerprint[path] = _digest(content)
            return decoded(content)

        return _Reading(fingerprint, self._parse(read))

    def _parse(self, read: ReadSecretFile) -> Endpoints | SettingsError:
        try:
            text = read(self._path)
        except (OSError, UnicodeDecodeError) as exc:
            why = no_text(exc) if isinstance(exc, UnicodeDecodeError) else exc.strerror
            return SettingsError("ENDPOINTS_FILE", "a readable file", f"{self._path} ({why})")
        try:
            return joined(read_tables(text, self._path), self._secrets(read))
        except SettingsError as exc:
            return exc

    def _secrets(self, read: ReadSecretFile) -> FetchSecrets:
        return AllSecrets(SecretFetcher(self._environ, read)).of if self._verifies else no_secrets


def _digest_of(path: Path) -> bytes | None:
    try:
        return _digest(path.read_bytes())
    except (OSError, ValueError):
        return None


def _digest(content: bytes) -> bytes:
    return sha256(content).digest()
