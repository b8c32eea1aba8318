"""The transitions of a job, one Lua script each, run atomically by Redis."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

from shared.queue import keys
from shared.queue.keys import UNTAGGED, Names
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
    "attempts",
    "removal",
    "asking",
    "moves",
    "finish",
)
"""The files of ``prelude``, each using words of itself and of those before it."""

_SELDOM: Final = "-- Seldom: "
"""What a file says before the functions that most calls of a script don't need."""

_COMMENT: Final = re.compile(r"--.*")
_WORD: Final = re.compile(r"(?<!\bkey\.)\b\w+")  # a name in Redis is none of a function
_DEFINED: Final = re.compile(r"^local (?:function )?(\w+(?:, \w+)*)", re.MULTILINE)


@cache
def load(
    name: str, names: Names = UNTAGGED, *, allow_oom: bool = True, follows: bool = False
) -> Script:
    """Read ``{name}.lua`` behind the words of the prelude that it uses.

    A partition's begins with a look at a name that nothing ever has. While its slot goes from one
    node to another key by key, that look fails; the first call that fails otherwise may come
    after others that have written.

    Args:
        name: of the file beside this one, without its ending.
        names: those that it reads and writes.
        allow_oom: whether it may run while Redis is full. Everything that drains may.
        follows: whether it looks for organizations that have moved, also in a single queue.
    """
    shebang = _SHEBANG_ALLOW_OOM if allow_oom else _SHEBANG
    guard = f"redis.call('EXISTS', '{names.queue}:never')\n" if names.tag else ""
    text = shebang + guard + keys.in_place(_before_names(name, bool(names.tag) or follows), names)
    # Redis names a script by its SHA-1; nothing is protected by it.
    digest = sha1(text.encode(), usedforsecurity=False).hexdigest()
    # The name by which a cluster, or a user's rights, know where it may run.
    return Script(name, text, digest, (names.queue,) if names.tag else ())


@cache
def _before_names(name: str, follows: bool) -> str:  # noqa: FBT001  # a cache's keys
    """The same for all partitions: finding what it needs takes longer than their names do."""
    body = files(__package__).joinpath(f"{name}.lua").read_text()
    # What it asks of an organization that may have moved comes before all else.
    first = _text_in("partitions", name) if follows else ""
    return "\n\n".join(_parts_of(first + _text_in("plain", name), body))


def _text_in(folder: str, name: str) -> str:
    """What stands there for the script, if anything does."""
    file = files(__package__).joinpath(folder, f"{name}.lua")
    return file.read_text() if file.is_file() else ""


def of(script: Script, names: Names) -> Script:
    """The same script as `load` gives it, for other names."""
    if not names.tag:
        return script
    return load(script.name, names, allow_oom=script.text.startswith(_SHEBANG_ALLOW_OOM))


def _parts_of(plain: str, body: str) -> Iterator[str]:
    """A script with what it needs of the prelude, in order.

    Each call of a script makes all its functions anew: a quarter of a microsecond each, of which a
    batch of a few events would wait for the most part in vain. So those that only turns and rates
    need are made by ``with_seldom()``, once there are any. And what a script does mostly stands in
    front of all else, as ``plain/{name}.lua``, with the few that it needs: it returns where nothing
    is left to do.
    """
    often = [each for each in _definitions() if not each.is_seldom]
    first = _needed(_words(plain), often)
    used = _words(plain) | _words(body)
    always = _needed(used, often)
    seldom = _needed(set(used), [each for each in _definitions() if each not in always])
    asked_for = sorted({name for each in seldom for name in each.names} & used)
    yield f"local {', '.join(('with_seldom', *asked_for))}"
    yield from (each.text for each in first)
    yield plain
    yield from (each.text for each in always if each not in first)
    yield _made_later(seldom, asked_for)
    yield body


def _needed(used: set[str], definitions: list["_Definition"]) -> list["_Definition"]:
    """Those whose names are used, by others of them as well; what these use is added."""
    needed: list[_Definition] = []
    while found := [each for each in definitions if each not in needed and each.names & used]:
        needed += found
        used |= set().union(*(each.words for each in found))
    return [each for each in definitions if each in needed]


def _made_later(definitions: list["_Definition"], asked_for: list[str]) -> str:
    """The function that makes them, and gives those to the script that it asks for."""
    text = "\n\n".join(each.text for each in definitions)
    early = sorted(_named_early(definitions) - {*asked_for})
    for name in (*asked_for, *early):
        text = re.sub(rf"^local (function )?(?={name}\b)", r"\1", text, flags=re.MULTILINE)
    once = "  if has_seldom then return end\n  has_seldom = true\n"
    first = f"  local {', '.join(early)}\n" if early else ""
    return f"local has_seldom\nfunction with_seldom()\n{once}{first}\n{text}\nend"


def _named_early(definitions: list["_Definition"]) -> set[str]:
    """What some of them name that is defined behind them: to Lua that would be a global."""
    found, later = set[str](), set[str]()
    for each in reversed(definitions):
        found |= each.words & later
        later |= each.names
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Definition:
    """A part of the prelude, equal to itself alone: lists of hundreds are searched for one.

    Attributes:
        text: its Lua, with comments.
        names: that it makes known.
        words: that it holds.
        is_seldom: whether only turns or rates need it.
    """

    text: str
    names: frozenset[str]
    words: frozenset[str]
    is_seldom: bool


@cache
def _definitions() -> tuple[_Definition, ...]:
    """All, in order; each begins behind an empty line, without indentation."""
    prelude = files(__package__).joinpath("prelude")
    return tuple(
        _Definition(part, frozenset(_defined(part)), frozenset(_words(part)), is_seldom)
        for name in _PRELUDE
        for part, is_seldom in _parts(prelude.joinpath(f"{name}.lua").read_text().strip())
    )


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """A file's parts, each with whether it stands behind the words that say seldom."""
    is_seldom = False
    for part in re.split(r"\n\n(?=\S)", text):
        is_seldom = is_seldom or part.startswith(_SELDOM)
        yield part, is_seldom


def _defined(part: str) -> set[str]:
    return {name for found in _DEFINED.findall(_code(part)) for name in found.split(", ")}


def _words(text: str) -> set[str]:
    return set(_WORD.findall(_code(text)))


def _code(text: str) -> str:
    return _COMMENT.sub("", text)
