"""The transitions of a job, one Lua script each, run atomically by Redis."""

import re
from collections.abc import Iterator
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

from shared.queue import keys
from shared.redis.wire import Script

_SHEBANG: Final = "#!lua\n"
_SHEBANG_ALLOW_OOM: Final = "#!lua flags=allow-oom\n"

_PRELUDE: Final = (
    "batch",
    "bytes",
    "claims",
    "suspects",
    "rates",
    "organizations",
    "line",
    "turns",
    "entry",
    "slots",
    "marks",
    "records",
    "removal",
    "asking",
    "finish",
)
"""The files of ``prelude``, each using words of itself and of those before it."""

_COMMENT: Final = re.compile(r"--.*")
_WORD: Final = re.compile(r"\w+")
_DEFINED: Final = re.compile(r"^local (?:function )?(\w+(?:, \w+)*)", re.MULTILINE)


def load(name: str, *, allow_oom: bool = True) -> Script:
    """Read ``{name}.lua`` behind the words of the prelude that it uses.

    Args:
        name: of the file beside this one, without its ending.
        allow_oom: whether it may run while Redis is full. Everything that drains may.
    """
    body = files(__package__).joinpath(f"{name}.lua").read_text()
    shebang = _SHEBANG_ALLOW_OOM if allow_oom else _SHEBANG
    text = shebang + keys.in_place("\n\n".join((*_words_for(body), body)))
    # Redis names a script by its SHA-1; nothing is protected by it.
    digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, digest)


def _words_for(body: str) -> Iterator[str]:
    """What of the prelude the script needs, in order.

    Each call of a script makes all its functions anew: a quarter of a microsecond each, of which a
    batch of a few events would wait for the most part in vain.
    """
    used, kept = _words(body), []
    for definition in reversed(_definitions()):
        names = {
            name for found in _DEFINED.findall(_code(definition)) for name in found.split(", ")
        }
        if names & used:
            kept.append(definition)
            used |= _words(definition)
    return reversed(kept)


@cache
def _definitions() -> tuple[str, ...]:
    """The prelude's, with their comments: each begins behind an empty line, without indentation."""
    prelude = files(__package__).joinpath("prelude")
    texts = (prelude.joinpath(f"{name}.lua").read_text().strip() for name in _PRELUDE)
    return tuple(part for text in texts for part in re.split(r"\n\n(?=\S)", text))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_code(text)))


def _code(text: str) -> str:
    return _COMMENT.sub("", text)
