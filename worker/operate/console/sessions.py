"""Who uses the console: sessions in signed cookies, and the tokens of their forms."""

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

SECONDS: Final = 12 * 3600
"""How long a session lasts."""

_MOST_ENDED: Final = 10_000


class Session(msgspec.Struct, frozen=True):
    """One person's stay in one browser.

    Attributes:
        id: drawn at random.
        who: the name that was given with the token; ``local`` where none is asked for.
        until: when it ends, seconds since the epoch.
        has_token: whether a token was given.
        may_act: whether it may change anything.
    """

    id: str
    who: str
    until: float
    has_token: bool
    may_act: bool = True


@dataclass(frozen=True, slots=True)
class Sessions:
    """Signs sessions by a key that dies with the process: after a restart, all are over.

    Attributes:
        now: the clock.
        browsers: keys by which browsers are known again, in which a token to act (``True``) or one
            to look was given: these outlive the process.
    """

    now: Callable[[], float] = time.time
    browsers: Mapping[bool, bytes] = field(
        default_factory=lambda: {may_act: browser_key("") for may_act in (True, False)}, repr=False
    )
    _key: list[bytes] = field(default_factory=lambda: [secrets.token_bytes(32)], repr=False)
    _ended: dict[str, float] = field(default_factory=dict, repr=False)

    def begin(self, who: str, *, has_token: bool, may_act: bool = True) -> Session:
        """A new session."""
        until = self.now() + SECONDS
        return Session(secrets.token_urlsafe(16), who, until, has_token, may_act)

    def end(self, session: Session) -> None:
        """End one before its time: whoever has its cookie still has nothing."""
        now = self.now()
        for known in [each for each, until in self._ended.items() if until <= now]:
            del self._ended[known]
        self._ended[session.id] = session.until
        if len(self._ended) > _MOST_ENDED:
            # To forget one would bring it back: rather all are over.
            self._ended.clear()
            self._key[:] = [secrets.token_bytes(32)]

    def seal(self, session: Session) -> str:
        """The session as a cookie's value."""
        text = urlsafe_b64encode(msgspec.json.encode(session)).decode().rstrip("=")
        return f"{text}.{self._sign('session', text)}"

    def open(self, sealed: str) -> Session | None:
        """The session in a cookie's value, if it was sealed here and lasts still."""
        text, _, signature = sealed.partition(".")
        if not same_secret(signature, self._sign("session", text)):
            return None
        session = msgspec.json.decode(urlsafe_b64decode(text + "=="), type=Session)
        if session.id in self._ended or session.until <= self.now():
            return None
        return session

    def seal_browser(self, *, may_act: bool) -> str:
        """A value for a browser in which somebody has known a token, perhaps one to look."""
        name = secrets.token_urlsafe(16)
        return f"{name}.{_signed(name, self.browsers[may_act])}"

    def known_browser(self, sealed: str, *, may_act: bool) -> str | None:
        """The browser's name in such a value, if it was sealed here for a token as good as that."""
        name, _, signature = sealed.partition(".")
        signs = [_signed(name, self.browsers[each]) for each in {True, may_act}]
        return name if any(same_secret(signature, sign) for sign in signs) else None

    def form_token(self, session: Session) -> str:
        """What each form of this session bears, and no other site can know."""
        return self._sign("form", session.id)

    def is_form_token(self, session: Session, token: str) -> bool:
        """Whether a form bears it."""
        return same_secret(token, self.form_token(session))

    def _sign(self, purpose: str, text: str) -> str:
        # With its purpose, so that the token of a form is no session.
        return _signed(f"{purpose}\n{text}", self._key[0])


def browser_key(token: str) -> bytes:
    """By which browsers are known again in which this token was given, as long as it is the token.

    It costs a twentieth of a second, since whoever has what is signed by it could else try by that
    what the token is. Without a token it is drawn at random.
    """
    if not token:
        return secrets.token_bytes(32)
    return hashlib.scrypt(token.encode(), salt=b"browsers of a console", n=1 << 14, r=8, p=1)


def _signed(text: str, key: bytes) -> str:
    return hmac.digest(key, text.encode(errors="surrogateescape"), "sha256").hex()


def same_secret(given: str, expected: str) -> bool:
    """Whether two secrets are the same, in a time that doesn't tell how much of them is."""
    return hmac.compare_digest(given.encode(errors="replace"), expected.encode(errors="replace"))
