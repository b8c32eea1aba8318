"""The journal of requests whose outcome isn't known yet, kept across crashes."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from time import monotonic, sleep, time
from typing import Annotated, Final, TypeVar
from uuid import uuid4

import msgspec

from shared.errors import SellfernError
from shared.files.atomic import PRIVATE, replace_file

KEY_SECONDS: Final = 86_400.0 - 600.0
"""How long a key is used: Sellfern keeps it for 24 hours, by a clock that may be another."""

PATIENCE: Final = 10.0
"""Seconds to wait while another process has the journal."""

# A clock may have been set back since; so little is no reason to ask somebody.
_SKEW: Final = 600.0
_POLL: Final = 0.05
_FOLDER_MODE: Final = 0o700

_Value = TypeVar("_Value")


class JournalError(SellfernError):
    """The journal can't be used; the message says what to do."""


class OutcomeTooOld(JournalError):
    """A request was never answered, and its idempotency key has meanwhile expired."""


class Pending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A request that has perhaps been sent, and whose outcome isn't known.

    Attributes:
        key: its idempotency key.
        organization: whose API key it goes with.
        operation: such as ``POST /webhooks``.
        request: the digest of the whole request.
        summary: for people; holds no secret.
        created_at: seconds since the epoch.
    """

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    organization: str
    operation: str
    request: str
    summary: str
    created_at: float


# What a newer version has written is refused: the next save would lose what isn't known here.
class _Contents(msgspec.Struct, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)] = 1
    pending: list[Pending] = []
    work: dict[str, msgspec.Raw] = {}


class Journal:
    """The journal's contents, which go to disk as a whole.

    Beside the requests it holds notes of work in progress, so that what a request has led to and
    that its outcome is known are written in one step.

    Args:
        path: the file.
        clock: seconds since the epoch.

    Raises:
        JournalError: the file is there but can't be read.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time) -> None:
        self._path = path
        self._clock = clock
        self._contents = _read(path)

    @classmethod
    @contextlib.contextmanager
    def locked(
        cls, path: Path, *, patience: float = PATIENCE, clock: Callable[[], float] = time
    ) -> Iterator["Journal"]:
        """The journal for one who writes: others wait until the block ends, or the process does.

        Raises:
            JournalError: another process has it for too long, or it can't be read.
        """
        try:
            path.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
            # A file of its own: the journal is replaced as a whole, and a lock on the old one holds
            # nobody.
            lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, PRIVATE)
        except OSError as exc:
            raise _unusable(path, exc) from exc
        try:
            _take(lock, path, patience)
            yield cls(path, clock)
        finally:
            os.close(lock)

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The requests whose outcome isn't known, the oldest first."""
        return tuple(self._contents.pending)

    def begin(
        self, organization: str, operation: str, request: bytes, summary: str
    ) -> tuple[Pending, bool]:
        """Take down that a request is about to be sent; it is on disk when this returns.

        Args:
            organization: whose API key it goes with.
            operation: such as ``POST /webhooks``.
            request: all of the request, in one form however it was put together.
            summary: for people.

        Returns:
            The entry, and whether an earlier process may have sent the request already.

        Raises:
            OutcomeTooOld: it was sent so long ago that its key has expired.
            JournalError: it can't be written.
        """
        known = self._find(organization, operation, request)
        if known is not None:
            # A key that Sellfern has forgotten would make a second endpoint of the same request.
            self._check_age(known)
            return known, True
        digest = sha256(request).hexdigest()
        fresh = Pending(str(uuid4()), organization, operation, digest, summary, self._clock())
        self._contents.pending.append(fresh)
        self.save()
        return fresh, False

    def has_begun(self, organization: str, operation: str, request: bytes) -> bool:
        """Whether this very request may have been sent, outcome unknown."""
        return self._find(organization, operation, request) is not None

    def settle(self, entry: Pending) -> None:
        """Forget a request whose outcome is known, and keep the notes made meanwhile.

        Raises:
            JournalError: it can't be written.
        """
        self._contents.pending.remove(entry)
        self.save()

    def drop(self, organization: str, operation: str, request: bytes) -> None:
        """Forget a request whose outcome no longer matters; `settle` or `save` writes that."""
        known = self._find(organization, operation, request)
        if known is not None:
            self._contents.pending.remove(known)

    def note(self, name: str, value: object) -> None:
        """Make a note, or with None remove it; `settle` or `save` writes it."""
        if value is None:
            self._contents.work.pop(name, None)
        else:
            self._contents.work[name] = msgspec.Raw(msgspec.json.encode(value))

    def noted(self, name: str, form: type[_Value]) -> _Value | None:
        """What was noted under a name.

        Raises:
            JournalError: it has another form.
        """
        raw = self._contents.work.get(name)
        if raw is None:
            return None
        try:
            return msgspec.json.decode(raw, type=form)
        except msgspec.DecodeError as exc:
            raise _corrupt(self._path, f"{name}: {exc}") from exc

    def save(self) -> None:
        """Write everything; it is on disk when this returns.

        Raises:
            JournalError: it can't be.
        """
        try:
            replace_file(self._path, msgspec.json.encode(self._contents))
        except OSError as exc:
            raise _unusable(self._path, exc) from exc

    def _find(self, organization: str, operation: str, request: bytes) -> Pending | None:
        wanted = (organization, operation, sha256(request).hexdigest())
        for entry in self._contents.pending:
            if (entry.organization, entry.operation, entry.request) == wanted:
                return entry
        return None

    def _check_age(self, entry: Pending) -> None:
        age = self._clock() - entry.created_at
        if -_SKEW <= age <= KEY_SECONDS:
            return
        raise OutcomeTooOld(
            f"{entry.summary}: sent about {age / 3600:.0f} hours ago and never answered, and its "
            "idempotency key has expired. Look at Sellfern whether it took effect (endpoints "
            f"list, or the dashboard), then: endpoints pending --forget {entry.key}"
        )


def _read(path: Path) -> _Contents:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Contents)
    except FileNotFoundError:
        return _Contents()
    except OSError as exc:
        raise _unusable(path, exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise _corrupt(path, str(exc)) from exc


def _take(lock: int, path: Path, patience: float) -> None:
    """Lock the file and write down whose it is; the system unlocks it when the process ends."""
    deadline = monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if monotonic() >= deadline:
                raise JournalError(
                    f"{path}: expected it within {patience:g} s, but process "
                    f"{os.pread(lock, 20, 0).decode('ascii', 'replace') or '?'} has it: "
                    "let that command end first"
                ) from None
            sleep(_POLL)
    # For the message above, which another command shows meanwhile.
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)


def _unusable(path: Path, exc: OSError) -> JournalError:
    return JournalError(f"{path}: expected a journal to read and write, got {exc.strerror}")


def _corrupt(path: Path, why: str) -> JournalError:
    return JournalError(
        f"{path}: expected a journal as this version writes it, got {why}. It tells which requests "
        "have no known outcome: look at Sellfern what there is, then move the file away"
    )
