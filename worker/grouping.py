"""Tells which dead letters died of one cause, by what their records say."""

import re
from collections.abc import Callable, Sequence
from hashlib import sha256
from http import HTTPStatus
from typing import Final, NamedTuple

from worker.tracebacks import is_the_authors

ANY: Final = "*"
"""What stands in a group's error for whatever differs from letter to letter."""

HARMED: Final = frozenset({"payload_lost", "payload_changed", "undecodable"})
"""Reasons of letters of which an earlier record may know more, as ``records.lua`` has them."""

CAUSE_FIELDS: Final = ("reason", "type", "error", "traceback")
"""Of a record: the arguments of `cause_of`."""

_KEY_DIGITS: Final = 12
_LONGEST_READ: Final = 600
_LONGEST: Final = 200
_LONGEST_PLACE: Final = 120
_SHORTEST_DRAWN: Final = 6


class Cause(NamedTuple):
    """What letters of one group have in common, besides their organization.

    Attributes:
        key: names it within an organization; the same bug has the same one in others.
        error: the first line of the error without what differs.
        place: the innermost frame of the author's code, as ``shop/hooks.py in save``; empty where
            no traceback tells of one.
    """

    key: str
    error: str
    place: str


def cause_of(reason: str, event_type: str, error: str, traceback: str) -> Cause:
    """The group of a letter, by the fields of its record.

    Args:
        reason: why it was buried.
        event_type: of the event; empty where the body gave none.
        error: the last one, without secrets; it begins with the exception's class, if there is one.
        traceback: as `traceback_of` writes it; empty where there is none.
    """
    traceback = _SECOND_PART.split(traceback, maxsplit=1)[0]
    line, place = normalized(_line_of(error, traceback)), _place_in(traceback)
    kind = "" if reason in HARMED else event_type
    told = f"{reason}\n{kind}\n{line}\n{place}".encode(errors="backslashreplace")
    # Without the organization: whoever compares two of them sees whether it is one bug.
    digest = sha256(told).hexdigest()
    return Cause(digest[:_KEY_DIGITS], line, place)


def cause_in(record: Sequence[bytes | None]) -> Cause:
    """The same, by what Redis has under each of `CAUSE_FIELDS`."""
    return cause_of(*((each or b"").decode(errors="replace") for each in record))


def _line_of(error: str, traceback: str) -> str:
    """The line of an error that says most: of a group of errors, that of the first one in it."""
    if _GROUP.match(error) and (inner := _within(traceback)):
        return inner
    lines = [line.strip() for line in error[: 4 * _LONGEST_READ].splitlines() if line.strip()]
    if lines[2:] and (found := _OF_FIELDS.fullmatch(lines[0])):  # as pydantic's
        return f"{found[1]}{found[2]}: {lines[1]}: {lines[2].partition(' [')[0]}"
    if len(lines) > 1 and lines[0].endswith(":"):  # as SQLAlchemy's, whose own text comes below
        is_status = lines[1].startswith("status = ")  # as gRPC's, whose details say what it was
        return " ".join(lines[: 3 if is_status else 2])
    return lines[0] if lines else ""


_OF_FIELDS: Final = re.compile(r"(.*?)\d+ (validation error)s? for .+")


_GROUP: Final = re.compile(r"\w*ExceptionGroup: ")
_SECOND_PART: Final = re.compile(r"^[ |]*\+- 2 of ", re.MULTILINE)
_INDENT: Final = re.compile(r"^(?:  \| )+")


def _within(traceback: str) -> str:
    """The first line, in what a traceback tells of a group's parts, that an error begins with."""
    inner = [_INDENT.sub("", line) for line in traceback.splitlines() if _INDENT.match(line)]
    said = (line for line in inner if _ERROR.match(line) and not _GROUP.match(line))
    return next(said, "")


_ERROR: Final = re.compile(r"[A-Za-z_]\w*(?:: |$)")
_FRAME: Final = re.compile(r'^[ |]*File "(.+)", line \d+, in (.+)$', re.MULTILINE)


def _place_in(traceback: str) -> str:
    """Where in the author's own code it went wrong, wherever that is installed."""
    places = [(file, name) for file, name in _FRAME.findall(traceback) if is_the_authors(file)]
    if not places:
        return ""
    file, name = places[-1]
    # Folders above differ between machines, and from one release to the next.
    short = "/".join(file.replace("\\", "/").split("/")[-2:])
    return f"{short} in {name}"[:_LONGEST_PLACE]


# What differs from one letter to the next

_ALL_PHRASES: Final = frozenset(each.phrase for each in HTTPStatus)
_PHRASES: Final = "|".join(map(re.escape, sorted(_ALL_PHRASES, key=len, reverse=True)))
_DAYS: Final = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?"
_MONTHS: Final = r"(?:Jan|Feb|Mar|Mär|Apr|May|Mai|Jun|Jul|Aug|Sep|Oct|Okt|Nov|Dec|Dez)[a-z]*"
_CLOCK: Final = r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?(?:[ ]?(?:[AP]M|Z|UTC|GMT|[+-]\d\d:?\d\d))?"

_TOKEN: Final = re.compile(
    rf"""
    (?P<kept>
        (?<!\w)[1-5]\d\d(?=\ (?:{_PHRASES}|Client\ Error|Server\ Error)|,\ message=)
      | (?<!\w)(?:HTTP(?:/\d(?:\.\d)?)?|status(?:[ _-]?code)?)
        ['"]?[ :=(]{{1,3}}(?:is\ |was\ )?[1-5]\d\d(?!\w|[.,:]\d)
      | (?<!\w)(?:code|error|response|returned|answered)['"]?[ :=(]{{1,3}}[1-5]\d\d
        (?!\w|[.,:]\d|\s*[a-z%])
      | (?<!\w)Errno\ \d+
    )
  | (?P<url>(?<!\w)[a-z][a-z0-9+.-]*://[^\s'"<>)\]}}|,;]+)
  | (?P<moving>
        (?<![\w.+-])[\w.+-]+(?:'[\w.+-]+)?@[\w-]+(?:\.[\w-]+)*
      | (?<!\w)ey[\w-]{{8,}}\.[\w-]+(?:\.[\w-]*)?  # a signed token
      | (?<=/tmp/)[^/\s'"]+
      | (?<!\w)\d{{4}}-\d\d-\d\d(?:[T ]{_CLOCK})?
      | (?<!\w)(?:{_DAYS}\ )?(?:\d{{1,2}}\.?\ {_MONTHS}|{_MONTHS}\ {{1,2}}\d{{1,2}})
        (?:,?\ {_CLOCK})?,?\ \d{{4}}(?:\ {_CLOCK})?
      | (?<!\w)(?:[0-9A-Fa-f]{{1,4}}:){{3,7}}[0-9A-Fa-f]{{1,4}}(?!\w)
      | (?<![\w:])\[?(?=[0-9A-Fa-f:]*\d)[0-9A-Fa-f:]{{0,35}}::[0-9A-Fa-f:]{{0,35}}(?![\w:])
        (?:%\w+)?(?:\](?::\d+)?)?
      | (?<!\w)(?:\+?\d{{1,4}}\ ?)?\(\d{{1,5}}\)[ /-]?\d[\d /.-]{{3,20}}\d(?!\w)  # to ring
      | (?<![\w)])[-+]?\d+(?:[.,:]\d+)*(?!\w)
    )
  | (?P<word>\w+(?:-\w+)*)
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""In a text; the first that matches says what becomes of it."""

_COLOUR: Final = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_NAMED: Final = re.compile(r"""(?<!\w)(['"“«`])([^'"”»`\n]{3,80})(['"”»`])(?!\w)""")
_GIVEN: Final = re.compile(
    r"""(?P<before>\b(?:got|value|data|entry|string|argument\ \$\d+:|string:|float:|base\ \d+:
          |type\ [\w ]{1,30}:)\ )['"“].*?['"”](?!\w)
      | ['"“][^'"”]*['"”](?=\ is\ not\ (?:a\ valid|one\ of)\b)""",
    re.VERBOSE,
)
"""What an event has brought, as Python, msgspec and databases quote it where they can't take it."""

_PROPER: Final = re.compile(r"[^\W\d_a-z]\S*(?:\ (?:[^\W\d_a-z]\S*|&|und|and|van|von|de|of))+")
"""Names of people and firms, unlike sentences, have all words begin with a capital."""

_UNIT: Final = re.compile(r"(?<=\*) (?=[%‰€$£](?!\w))|(?<=[€$£]) (?=\*)")
"""The blank between a number and its unit, which some write, and some don't."""

_IN_ROW: Final = re.compile(r"\*(?:[\s,.:/+-]*\*)+")
_LISTED: Final = re.compile(r"""(['"]?)([\w-]*\*)\1(?:,\ *\1\2\1)+""")
_SHORT_NUMBER: Final = re.compile(r"[a-z]{2,}\d{1,2}")
_SEGMENT: Final = re.compile(r"[-_]+|[^-_]+")
_UNSPACED: Final = re.compile(r"[\u0e00-\u0eff\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff]")
"""Of scripts that put no blanks between words, so that an id stands in the midst of a sentence."""

_NUMBERED: Final = re.compile(r"[A-Za-z_-]*\d[\dA-Za-z_-]*")
_LONG_HEX: Final = re.compile(r"[0-9a-f]{12,}", re.IGNORECASE)
_CAMEL: Final = re.compile(r"(?:[A-Z]*[a-z]{2,}(?![a-z])|[A-Z]{2,}(?![A-Za-z]))+[A-Z]?")
"""Takes each run of letters whole: one that could be cut anywhere would take a minute, of 40."""
_STEP: Final = re.compile(r"v\d{1,2}|[a-z][a-z_.-]{0,31}", re.IGNORECASE)


def normalized(line: str) -> str:
    """A line of an error, with ``*`` for what differs from one event to another.

    The hosts of URLs stay, with the steps of their path up to the first that is no word; so do
    quoted identifiers, and HTTP's status codes. UUIDs, dates, addresses of mail, ``prefix_id``s,
    hexadecimals, telephones' and other numbers go.
    """
    line = _COLOUR.sub("", line[:_LONGEST_READ])
    head, colon, rest = line.partition(": ")
    if not (colon and head.isidentifier()):  # an exception's class is nobody's id
        head, colon, rest = "", "", line
    rest = _GIVEN.sub(_without_value, rest)
    # Names first: what is left of one without its digits would be none any more.
    rest = _NAMED.sub(_without_name, rest)
    rest = _TOKEN.sub(_without_ids, rest)
    rest = _LISTED.sub(r"\1\2\1", _IN_ROW.sub(ANY, rest))
    rest = _UNIT.sub("", " ".join(rest.split()))
    return f"{head}{colon}{rest}"[:_LONGEST]


def _without_value(found: re.Match[str]) -> str:
    return f"{found['before'] or ''}'{ANY}'"  # which quotes there are depends on what is in them


def _without_name(found: re.Match[str]) -> str:
    is_name = _PROPER.fullmatch(found[2]) and found[2] not in _ALL_PHRASES
    return f"{found[1]}{ANY}{found[3]}" if is_name else found[0]


def _without_ids(found: re.Match[str]) -> str:
    replace: Callable[[str], str] | None = _REPLACED.get(found.lastgroup or "")
    return replace(found[0]) if replace else found[0]


def _url(text: str) -> str:
    scheme, _, rest = text.partition("://")
    place, _, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    # Who signs in there is no part of it, least of all with a password.
    host = place.rpartition("@")[2]
    if re.fullmatch(r"[\d.]+(?::\d+)?|\[.*", host):  # of one of many machines
        host = ANY
    steps: list[str] = []
    for step in filter(None, path.rstrip(".:").split("/")):
        if not _STEP.fullmatch(step):
            steps.append(ANY)
            break
        steps.append(step)
    return "/".join((f"{scheme}://{host}", *steps))


def _word(text: str) -> str:
    """A word as it is, or what is left of it without the parts that are ids."""
    if not any(map(str.isdigit, text)) and not _looks_drawn(text):
        return text
    if _UNSPACED.search(text):
        return _NUMBERED.sub(ANY, text)
    parts, kept = _SEGMENT.findall(text), list[str]()
    for part in parts:
        kept.append(ANY if _is_id(part, is_first=not kept) else part)
    first_any = next((n for n, part in enumerate(kept) if part == ANY), None)
    if first_any is None:
        return text
    # What stands behind an id belongs to it, and so do the letters of a document's number.
    is_number = parts[0].isupper() and parts[1:2] == ["-"]
    return ANY if is_number else "".join(kept[: first_any + 1])


def _is_id(part: str, *, is_first: bool) -> bool:
    if any(map(str.isdigit, part)):
        return not _SHORT_NUMBER.fullmatch(part)
    return (not is_first and _is_mixed(part)) or _LONG_HEX.fullmatch(part) is not None


def _looks_drawn(text: str) -> bool:
    """Whether it may be drawn by lot, though no digit came up."""
    _, *others = re.split("[-_]+", text)
    return any(map(_is_mixed, others)) or _LONG_HEX.fullmatch(text) is not None


def _is_mixed(part: str) -> bool:
    """Whether capitals and small letters stand in an order that no name has."""
    has_both = part != part.lower() and part != part.upper()
    return has_both and len(part) >= _SHORTEST_DRAWN and _CAMEL.fullmatch(part) is None


_REPLACED: Final[dict[str, Callable[[str], str]]] = {
    "url": _url,
    "moving": lambda _: ANY,
    "word": _word,
}
