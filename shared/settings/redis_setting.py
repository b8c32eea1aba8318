"""Where Redis is, as somebody has set it: by a text, or by a file that may change."""

from pathlib import Path
from typing import Final

from shared.errors import SettingsError
from shared.files.plain_text import decoded, no_text
from shared.settings.reader import Reader
from shared.settings.redis_url import EXPECTED, RedisUrl, UrlFile, split_urls

_FILE: Final = "_FILE"


def read_urls(
    reader: Reader, name: str, default: tuple[RedisUrl, ...], *, most: int
) -> tuple[RedisUrl, ...]:
    """Read a setting that holds URLs of Redis, or the one that names the file which does.

    Args:
        reader: where from.
        name: of the first one; the other one ends in ``_FILE``.
        default: what holds where neither is set.
        most: how many URLs there may be.
    """
    if not reader.text(name + _FILE, ""):
        return reader.parsed(
            *(name, default, lambda text: _urls(text, name, most), EXPECTED), show=_shown
        )
    try:
        path, content = reader.file_of(name)
        found = urls_in(content, path, name + _FILE, most=most)
    except SettingsError as exc:
        reader.refuse(exc)
        return default
    reader.shown[name] = _shown(found)
    return found


def _shown(urls: tuple[RedisUrl, ...]) -> str:
    return " ".join(map(str, urls))


def urls_in(content: bytes, path: Path, setting: str, *, most: int) -> tuple[RedisUrl, ...]:
    """The URLs that a file holds, each of which knows that it is from there.

    Args:
        content: all of it.
        path: where it is.
        setting: that names it.
        most: how many URLs there may be.

    Raises:
        SettingsError: they are wrong; the message holds no password.
    """
    try:
        urls = _urls(decoded(content), setting, most)
    except UnicodeDecodeError as exc:
        raise SettingsError(setting, EXPECTED, f"{path} ({no_text(exc)})") from None
    except SettingsError as exc:
        raise SettingsError(exc.setting, exc.expected, f"{exc.got} in {path}") from None
    # Its place in the file is how one of several is found there again.
    return tuple(
        RedisUrl(url.reveal(), file=UrlFile(path, setting, number, len(urls)))
        for number, url in enumerate(urls)
    )


def _urls(text: str, setting: str, most: int) -> tuple[RedisUrl, ...]:
    urls = tuple(RedisUrl(each, setting=setting) for each in split_urls(text))
    if len(set(urls)) < len(urls):
        twice = next(str(url) for url in urls if urls.count(url) > 1)
        raise SettingsError(setting, "each primary once", f"{twice} twice")
    if len(urls) > 1 and any(url.nodes for url in urls):
        raise SettingsError(setting, "a cluster by itself", f"{len(urls)} URLs")
    if len(urls) > most:
        expected = "one URL" if most == 1 else f"at most {most} primaries"
        raise SettingsError(setting, expected, str(len(urls)))
    return urls
