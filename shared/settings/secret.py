"""A secret: what a text has to be to be one, wherever it is from, and that it shows nowhere."""

import re
from typing import Final

from shared.display import escape_controls
from shared.errors import SecretDefect
from shared.files.plain_text import trimmed

_MASK: Final = "***"


class Secret:
    """A text that shows in no log, no message and no traceback; only `reveal` gives it."""

    __slots__ = ("_text", "raw")

    def __init__(self, text: str) -> None:
        self._text = text
        # A key is asked for with every delivery: made once, and read without a call. What is no
        # UTF-8, as a variable's odd bytes, is refused where it is judged, not here.
        self.raw = text.encode("utf-8", "surrogatepass")
        """The same as bytes, as whoever signs takes it; it shows nowhere either."""

    def reveal(self) -> str:
        """Give the text itself."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return self._text == other._text if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return f"Secret('{_MASK}')"

    def __str__(self) -> str:
        return _MASK


VENDOR_PREFIX: Final = "whsec_"
"""What Sellfern's secrets, and Standard Webhooks' ones, begin with."""

_PREFIXES: Final = (VENDOR_PREFIX, "whpk_")
"""The same, and what Standard Webhooks' public keys begin with."""

VENDOR_SECRET: Final = re.compile(VENDOR_PREFIX + r"[A-Za-z0-9+/_-]+={0,2}")
"""What a secret of theirs looks like, as far as it is known."""

LEAST_KEY: Final = 16
"""Bytes of a key under which it can be guessed; signature schemes are made for 24 to 64."""

# Whoever fills a template in did not: these are on everybody's lips, so anybody could sign.
_TEMPLATE: Final = re.compile(
    r"\$\{.*\}"  # ${X}, ${X:-default}, ${{ secrets.X }}
    r"|\$\(.*\)"  # $(X)
    r"|\$[A-Za-z_][A-Za-z0-9_]*"  # $X
    r"|\{\{.*\}\}|\{%.*%\}|#\{.*\}#?"  # {{ x }}, {% x %}, #{X}#
    r"|\{[A-Za-z_][A-Za-z0-9_ .-]*\}"  # {x}
    r"|<.*>"  # <your-secret>
    r"|\[[A-Za-z_][A-Za-z0-9_ .-]*\]"  # [your secret]
    r"|%[A-Za-z_][A-Za-z0-9_]*%|%\([A-Za-z_][A-Za-z0-9_]*\)s"  # %X%, %(x)s
    r"|__[A-Za-z0-9_]+__|@@?[A-Za-z_][A-Za-z0-9_]*@@?",  # __X__, @X@
    re.DOTALL,
)
_EXAMPLE: Final = re.compile(
    r".*(?:…|\.\.\.)|(.)\1{3,}|\*{3}"  # whsec_…, as documentation writes it, or xxxx
    r"|(?:change|replace)[ _-]?(?:me|this)|to[ _-]be[ _-]replaced|placeholder"
    r"|(?:your|my|the)[ _-](?:[a-z]+[ _-])*secret(?:[ _-](?:here|goes[ _-]here))?",
    re.DOTALL | re.IGNORECASE,
)
_QUOTES: Final = ('""', "''", "``", "“”", "„“", "‘’", "‚‘", "«»", "»«")  # noqa: RUF001  # those that are meant
_INNER: Final = re.compile(r"[\s\"'`“”„‘’‚«»]")  # noqa: RUF001  # same
# What follows the sign isn't one itself: base64 ends in them.
_ASSIGNMENT: Final = re.compile(
    r"(?:export\s+)?[A-Z_][A-Z0-9_]*\s*=\s*[^=\s].*|export\s.*", re.DOTALL
)
_JSON: Final = re.compile(r"\{\s*\".*\}", re.DOTALL)
_BEHIND: Final = re.compile(r"(?:[,;]|\\[nrt])$")
"""What follows a value in a list, a program or an escaped text, and is in no known alphabet."""
_ENCODED_PREFIX: Final = "d2hzZWNf"
"""The beginning of a secret of the vendor that was encoded by base64, as Kubernetes asks for."""


def secret_in(text: str, *, is_free: bool) -> str:
    """Give the secret that a text holds: without byte order mark and white space around it.

    Args:
        text: from a file, a variable or an option.
        is_free: whether any text may be a secret; otherwise, and where it is Sellfern's by its
            beginning, white space and quotes inside are refused, since the alphabet has none.

    Raises:
        SecretDefect: it holds none, or something else than a secret alone. The message shows
            nothing of it.
    """
    secret = trimmed(text)
    if not secret or secret in _PREFIXES:
        raise SecretDefect("a secret that isn't empty", "nothing")
    _refuse_more(secret)
    _refuse_template(secret)
    if _INNER.search(secret) and (not is_free or secret.startswith(_PREFIXES)):
        raise SecretDefect("a secret without white space and quotes", "one with them inside")
    if _BEHIND.search(secret) and (not is_free or secret.startswith(_PREFIXES)):
        raise SecretDefect("the secret alone", "one with , or ; or \\n behind it")
    return secret


def has_inner_space(secret: str) -> bool:
    """Whether there is white space or a quote inside, which few secrets have."""
    return _INNER.search(secret) is not None


def _refuse_more(secret: str) -> None:
    """Refuse what has a secret in it beside something else."""
    alone = "the secret alone"
    if "\n" in secret or "\r" in secret:
        raise SecretDefect(alone, "several lines")
    if escape_controls(secret) != secret:
        raise SecretDefect("a secret of visible characters", "a control or invisible character")
    if secret[0] + secret[-1] in _QUOTES and len(secret) > 1:
        raise SecretDefect("a secret without quotes around it", "one in quotes")
    if _JSON.fullmatch(secret):
        raise SecretDefect(alone, "JSON")
    if secret.startswith(_PREFIXES):
        return
    if _ASSIGNMENT.fullmatch(secret):
        raise SecretDefect(f"{alone}, without a name", "NAME=VALUE")
    for prefix in _PREFIXES:
        if prefix in secret:
            raise SecretDefect(alone, f"something before {prefix}")
    if secret.startswith(_ENCODED_PREFIX):
        raise SecretDefect(f"a secret that begins with {VENDOR_PREFIX}", "one in base64 once more")


def _refuse_template(secret: str) -> None:
    inner = secret
    for prefix in _PREFIXES:
        inner = inner.removeprefix(prefix)
    inner = trimmed(inner)
    if _TEMPLATE.fullmatch(inner):
        raise SecretDefect("a secret", "a template that nobody has filled in")
    if _EXAMPLE.fullmatch(inner):
        raise SecretDefect("a secret", "an example that stands for one")
