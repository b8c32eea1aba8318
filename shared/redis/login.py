"""Who we are at Redis, as its URL or the file of that says when a connection is made."""

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import Final, TypeAlias

from redis.credentials import CredentialProvider

from shared.errors import SettingsError
from shared.files.background import in_daemon_thread
from shared.files.patient import PatientFiles
from shared.files.versions import content_of
from shared.redis.rereading import Reread
from shared.settings.reader import unreadable
from shared.settings.redis_setting import urls_in
from shared.settings.redis_url import RedisUrl, UrlFile

_PATIENCE: Final = 1.0
"""Seconds that the file system has to answer; after that the last answer holds."""

_Content: TypeAlias = bytes | OSError | ValueError | None


class Login(CredentialProvider):
    """Tells redis-py who we are, for a connection that it has just made.

    Where the URL stands in a file, it is read again: so a password is changed while programs run.
    Connections that are there stay.

    Args:
        url: as the program has begun with it.
        what: what ``AUTH`` takes, of a URL.
    """

    def __init__(self, url: RedisUrl, what: Callable[[RedisUrl], tuple[str, ...]]) -> None:
        self._url = url
        self._what = what

    async def get_credentials_async(self) -> tuple[str, ...]:  # type: ignore[override]  # or none
        """User and password, or a password, or nothing."""
        if self._url.file is None:
            return self._what(self._url)
        file = _file_of(self._url, self._url.file)
        # In a thread: where the file system hangs, only those wait that connect.
        return self._what(await in_daemon_thread(file.url))


def login(url: RedisUrl) -> Login:
    """Who we are at Redis."""
    return Login(url, lambda now: now.login)


def sentinel_login(url: RedisUrl) -> Login:
    """Who we are at the Sentinels that know where it is."""
    return Login(url, lambda now: now.sentinels.login if now.sentinels else ())


class _File:
    """The file that a URL stands in.

    Args:
        url: as it stood there at first.
        file: which.
    """

    def __init__(self, url: RedisUrl, file: UrlFile) -> None:
        self._file = file
        self._place = url.place
        self._files = PatientFiles(_PATIENCE)
        self._one_at_a_time = Lock()
        self._known = Reread[_Content, RedisUrl](
            *(None, url, self._taken), reread="redis_url_reread", refused="redis_url_refused"
        )

    def url(self) -> RedisUrl:
        """The URL as it stands there now; as it did before, where it can't be that."""
        path = self._file.path
        with self._one_at_a_time:
            return self._known.of(self._files.each(content_of, [path])[path])

    def _taken(self, content: _Content) -> RedisUrl:
        file = self._file
        if not isinstance(content, bytes):
            raise unreadable(file.path, file.setting, content)
        urls = urls_in(content, file.path, file.setting, most=file.count)
        # Whatever else has changed, the program has begun with what stood there.
        if len(urls) != file.count or urls[file.number].place != self._place:
            expected = f"{self._place} with any user and password, until the next start"
            got = " ".join(url.place for url in urls)
            raise SettingsError(file.setting, expected, f"{got} in {file.path}")
        return urls[file.number]


@cache
def _file_of(url: RedisUrl, file: UrlFile) -> _File:
    """That of this process, so that what is wrong with it is said once."""
    return _File(url, file)
