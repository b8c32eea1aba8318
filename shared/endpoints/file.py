"""The endpoints while a program runs: read again on a change, replaced only by valid ones."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import thread_time
from typing import Final

from shared.endpoints.endpoint import MISSING_CAUSES, Endpoints, MissingSecret
from shared.endpoints.reader import EndpointsReader, Reading
from shared.errors import Problem, SettingsError
from shared.files.background import Pace, in_daemon_thread
from shared.files.patient import LIMIT, PatientFiles
from shared.observe import metrics
from shared.observe.logs import get_logger

INTERVAL: Final = 0.5
"""Seconds between two looks at the files."""

_WORK_SHARE: Final = 0.04
"""Of a processor, for looking: with thousands of files the looks become rarer."""
_LONGEST_INTERVAL: Final = 2.0
_TOLD: Final = 10
"""How many missing secrets a log or a probe names at once."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at the files found, and how many seconds of a processor it took."""

    reading: Reading | None
    error: SettingsError | None
    seconds: float


class EndpointsFile:
    """The endpoints as the file, or the folder of files, last said validly.

    Args:
        path: the file or the folder.
        environ: where ``{ env = "…" }`` secrets are.
        verifies: whether the secrets of endpoints are needed. A worker verifies nothing, so it asks
            for none, and they needn't be where it runs; it needs those in settings.
        limit: seconds that the file system may take to answer about one file.
    """

    def __init__(
        self,
        path: Path,
        environ: Mapping[str, str],
        *,
        verifies: bool = True,
        limit: float = LIMIT,
    ) -> None:
        self._path = path
        self._verifies = verifies
        self._files = PatientFiles(limit, self._await)
        self._reader = EndpointsReader(path, environ, self._files, verifies=verifies)
        # Read with every delivery, so it is no property.
        self.current = Endpoints({}, {})
        """The endpoints to go by now; none before `load`."""
        self._errors: Mapping[Path, SettingsError] = {}
        self._hanging: frozenset[Path] = frozenset()
        self._is_told = True

    @property
    def notes(self) -> list[Problem]:
        """What somebody has to mend, though the program goes on."""
        missing = [
            Problem("secret_missing", f"{each.whose}: {each.error}")
            for each in self.current.missing
        ]
        refused = [Problem("endpoints_refused", str(error)) for error in self._errors.values()]
        hanging = [Problem("file_hangs", str(path)) for path in sorted(self._hanging)]
        return (refused + hanging + missing)[:_TOLD]

    def load(self, *, is_told: bool = False) -> Endpoints:
        """Read everything for the first time.

        Args:
            is_told: whether the log is told of what is waited for and what can't be had, as a
                program that goes on without it has to.

        Raises:
            SettingsError: a file can't be read, or something in it is wrong, or nothing could be
                verified for any endpoint.
        """
        self._is_told = is_told
        endpoints = self._reader.first()
        _refuse_useless(endpoints, verifies=self._verifies)
        self._tell_hanging()
        self._take(endpoints, known=())
        self._is_told = True
        return endpoints

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
        pause = interval
        while True:
            await asyncio.sleep(pause)
            try:
                # A thread that nobody waits for: a file system that hangs must not hold up the
                # requests, nor the end of the program.
                look = await in_daemon_thread(self._look)
                self._consider(look)
                pause = self._pause(look, interval)
            except Exception:  # noqa: BLE001  # a watch that ended would keep removed secrets alive
                _log.exception("endpoints_watch_failed")

    def _pause(self, look: _Look, interval: float) -> float:
        """Seconds until the next look: more where looking is work, but not where it only waited.

        Nor where it waited for its turn: on a busy machine a revocation must not come later.
        """
        if not self._reader.is_settled:
            return interval
        return max(interval, min(look.seconds / _WORK_SHARE, _LONGEST_INTERVAL))

    def _look(self) -> _Look:
        started = thread_time() + self._files.worked
        reading = error = None
        try:
            reading = self._reader.again(Pace())
        except SettingsError as exc:
            error = exc
        return _Look(reading, error, thread_time() + self._files.worked - started)

    def _consider(self, look: _Look) -> None:
        self._tell_hanging()
        if look.error is not None:
            self._refuse({self._path: look.error})
        if look.reading is None:
            return
        # Put right by undoing the change: nothing is new, but somebody waits to be told.
        mended = self._errors.keys() - look.reading.errors.keys()
        self._refuse(look.reading.errors)
        endpoints = look.reading.endpoints
        if mended or endpoints is not None:
            self._take(self.current if endpoints is None else endpoints, known=self.current.missing)
            metrics.ENDPOINTS_RELOADS.labels("applied").inc()
            _log.info(
                "endpoints_reloaded",
                endpoints=len(self.current),
                organizations=len(self.current.organizations),
            )

    def _take(self, endpoints: Endpoints, known: Sequence[MissingSecret]) -> None:
        self.current = endpoints
        for cause in MISSING_CAUSES:
            count = sum(each.cause == cause for each in endpoints.missing)
            metrics.SECRETS_MISSING.labels(cause).set(count)
        if self._is_told:
            _tell_missing(endpoints.missing, {(each.whose, str(each.error)) for each in known})

    def _refuse(self, errors: Mapping[Path, SettingsError]) -> None:
        told = {str(error) for error in self._errors.values()}
        self._errors = errors
        for error in errors.values():
            if str(error) not in told:
                metrics.ENDPOINTS_RELOADS.labels("refused").inc()
                _log.error("endpoints_refused", error=str(error), kept=len(self.current))

    def _tell_hanging(self) -> None:
        before, self._hanging = self._hanging, self._files.stuck
        metrics.FILES_HANGING.set(len(self._hanging))
        if not self._is_told:
            return
        for path in sorted(self._hanging - before):
            _log.error("file_hangs", path=str(path), seconds=self._files.limit)
        for path in sorted(before - self._hanging):
            _log.info("file_answers", path=str(path))

    def _await(self, path: Path) -> None:
        if not self.current and self._is_told:  # at the start somebody may wonder
            _log.warning("file_awaited", path=str(path), seconds=self._files.limit)


def _refuse_useless(endpoints: Endpoints, *, verifies: bool) -> None:
    """Refuse to start where nothing could be accepted and waiting wouldn't help."""
    if not verifies or any(endpoint.secrets for endpoint in endpoints.values()):
        return
    for missing in endpoints.missing:
        if missing.cause == "unusable":
            raise missing.error


def _tell_missing(missing: Sequence[MissingSecret], told: Collection[tuple[str, str]]) -> None:
    new = [each for each in missing if (each.whose, str(each.error)) not in told]
    for each in new[:_TOLD]:
        _log.error(
            "secret_missing",
            whose=each.whose,
            cause=each.cause,
            error=str(each.error),
            kept_until=_time(each.kept_until),
        )
    if len(new) > _TOLD:
        _log.error("secrets_missing", more=len(new) - _TOLD)


def _time(moment: float | None) -> str | None:
    if moment is None:
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
