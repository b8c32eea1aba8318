"""Hides secrets in what is told of failures."""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from shared.files.plain_text import decoded
from shared.files.versions import content_of
from shared.settings.redis_url import split_urls
from shared.settings.secret import VENDOR_PREFIX, Secret

MASK: Final = "***"

LONGEST: Final = 4096
"""Characters of a secret that is found in one piece; of a longer one, each line is."""

_SECRET_NAME: Final = re.compile(
    r"SECRET|TOKEN|PASSW|PASSPHRASE|PWD|KEY|CREDENTIAL|DSN|AUTH(?!OR)|PRIVATE|COOKIE", re.IGNORECASE
)
_FOLDERS: Final = ("PWD", "OLDPWD")
"""Where a shell is, and was: no passwords, though others are called so."""
_OF_REDIS: Final = ("REDIS_URL_FILE", "REDIS_URL_BEFORE_FILE")
_RANDOM: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[!-~]{16,}")
_URL: Final = re.compile(r"[A-Za-z][\w.+-]*://")
_ESCAPED: Final = re.compile(r"[^A-Za-z0-9_.~-]")
"""What somebody may write in another form: in a URL all but these."""
_PIECES: Final = re.compile(r"\\+|[^\\]", re.DOTALL)
_NO_WORD_BEFORE: Final = r"(?:(?<!\w)|(?<=%[0-9A-Fa-f]{2})|(?<=\\[nrt]))"
_SHORTEST: Final = 4
_SHORTEST_BY_NAME: Final = 8
_ANYWHERE: Final = 12
_MOST_ORGANIZATIONS: Final = 1000

Named = Iterator[tuple[str, str | Secret]]


class Mask:
    """Hides some texts wherever they stand.

    Of each also the forms in which URLs, JSON and Python write it, or a part of its characters. One
    below twelve characters is hidden only where it stands by itself, or a password ``test`` would
    shred ``latest.py``.

    Args:
        secrets: to hide; those below four characters are left out.
        beside: what hides others, which are to be hidden as well.

    Attributes:
        hidden: each, the longest first, with the longest part of it that nobody escapes.
    """

    def __init__(self, secrets: Iterable[str], beside: "Mask | None" = None) -> None:
        # A key of several lines is seldom told with its line breaks as they are.
        found = {part for each in secrets for part in (each[:LONGEST], *_lines_of(each))}
        found.update(beside.hidden if beside is not None else ())
        kept = sorted((each for each in found if len(each) >= _SHORTEST), key=len, reverse=True)
        self.hidden: dict[str, str] = {each: max(_ESCAPED.split(each), key=len) for each in kept}

    def hide(self, text: str) -> str:
        """The text with ``***`` in their place."""
        for secret, unescaped in self.hidden.items():
            # Most are nowhere, and a pattern would cost more.
            if unescaped in text:
                text = re.sub(_pattern(secret), MASK, text)
        return text


def _lines_of(secret: str) -> list[str]:
    lines = [line.strip() for line in secret.splitlines()]
    return [line for line in lines if len(line) >= _ANYWHERE]


def _pattern(secret: str) -> str:
    """Finds it in any form."""
    anywhere = "".join(map(_written, _PIECES.findall(secret)))
    return anywhere if len(secret) >= _ANYWHERE else rf"{_NO_WORD_BEFORE}{anywhere}(?!\w)"


def _written(piece: str) -> str:
    """A character, or some backslashes, as they are, or as one of those writes them."""
    if _ESCAPED.match(piece) is None:
        return re.escape(piece)
    raw = piece.encode(errors="surrogatepass")
    in_url = "".join(f"%{byte:02x}" for byte in raw)
    if piece.startswith("\\"):
        # Possessively, or a text of many would take for ever.
        return rf"(?i:\\{{{len(piece)},}}+|{in_url})"
    escapes = {json.dumps(piece), ascii(piece), repr(piece), repr(raw)[1:]}
    forms = {re.escape(each[1:-1]) for each in escapes} | {re.escape(f"\\{piece}")}
    # A text within a text has more than one before it.
    forms = {each.replace(r"\\", r"\\++") for each in forms} | {re.escape(piece), in_url}
    forms |= {r"\+"} if piece == " " else set()
    return f"(?i:{'|'.join(sorted(forms, key=len, reverse=True))})"


class Masks:
    """What has to be hidden in what is told of an event.

    Hidden are, of an organization's settings: a text that the endpoints file names by ``env`` or
    ``file``; one of eight characters or more whose name says that it is secret (``api_key``,
    ``password``, ``token``, …); one of sixteen or more that looks random: letters and digits
    without a blank. Of the environment: a variable of eight characters or more whose name says so,
    and whatever begins as Sellfern's secrets do. Of both: the password in a URL, and of the
    environment that in the file of Redis's URL. All else stays, since a host or a region that is
    masked would hide what went wrong.

    Args:
        environ: as it is now.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._known: dict[str, tuple[Mapping[str, object], Mask]] = {}
        self.own = Mask(_of_environment(environ))
        """Hides what the environment holds."""

    def of(self, organization: str, settings: Mapping[str, object]) -> Mask:
        """What hides the environment's and one organization's secrets.

        Args:
            organization: its id.
            settings: as its handlers have them; changed ones are another mapping.
        """
        if not settings:
            return self.own
        known = self._known.get(organization)
        if known is not None and known[0] is settings:
            return known[1]
        if len(self._known) >= _MOST_ORGANIZATIONS:
            self._known.clear()
        mask = Mask(_of_settings(settings), self.own)
        self._known[organization] = (settings, mask)
        return mask


def _of_environment(environ: Mapping[str, str]) -> Iterator[str]:
    for name, text in environ.items():
        yield from _passwords(text)
        if name in _OF_REDIS:
            with suppress(OSError, ValueError):
                yield from _passwords(decoded(content_of(Path(text))))
        is_long = len(text) >= _SHORTEST_BY_NAME
        if is_long and (text.startswith(VENDOR_PREFIX) or _is_secret(name, text)):
            yield text


def _of_settings(settings: Mapping[str, object]) -> Iterator[str]:
    for name, text in _texts("", settings):
        if isinstance(text, Secret):
            yield text.reveal()
            continue
        yield from _passwords(text)
        if len(text) >= _SHORTEST_BY_NAME and (_is_secret(name, text) or _looks_random(text)):
            yield text


def _texts(name: str, value: object) -> Named:
    """Every text in settings, each with the name that it stands under, however deep."""
    if isinstance(value, str | Secret):
        yield name, value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from _texts(f"{key}", each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(name, each)


def _is_secret(name: str, text: str) -> bool:
    # `…_FILE` names where one is; a bare path is told often, and gives nothing away.
    is_place = name.upper().endswith(("_FILE", "_PATH", "_URL")) or name in _FOLDERS
    is_place = is_place or (text.startswith("/") and not _looks_random(text))
    return not is_place and _SECRET_NAME.search(name) is not None


def _looks_random(text: str) -> bool:
    return _URL.match(text) is None and _RANDOM.fullmatch(text) is not None


def _passwords(text: str) -> Iterator[str]:
    """Those of a URL, or of several of Redis."""
    for url in split_urls(text):
        yield from _passwords_of(url)


def _passwords_of(text: str) -> Iterable[str]:
    """The password of a URL, as it stands there and as it is meant."""
    if _URL.match(text) is None:
        return ()
    try:
        parts = urlsplit(text)
        named = [value for name, value in parse_qsl(parts.query) if _is_password(name)]
        password = parts.password
    except ValueError:  # no URL after all
        return ()
    return (*named, password, unquote(password)) if password else named


def _is_password(name: str) -> bool:
    return name.lower().endswith(("password", "secret"))  # as libpq calls them
