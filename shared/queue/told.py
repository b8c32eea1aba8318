"""What the mark of an event that is done tells of how it was handled, in 24 characters at the most.

Behind the job stand a blank, when the event ended, codes of handler and worker, how many attempts
it took, how long the last one did, and how long before the end the event was accepted: numbers to
the base of 36. In front of a time, a full stop says that it is in the smaller unit of its two, a
colon that it is in the larger one. When it ended is put in front by ``settle.lua``, which alone
knows Redis's clock. A code is a digest of a name: whoever knows the name knows whose it is. What no
handler has ended took no attempts, and a word stands for the worker: ``marks.lua`` has them.

Behind all that may stand a line break, and the event's history: ``prelude/attempts.lua`` has it.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

VERSION: Final = 3
"""Of marks, as a worker says which it reads; one that says nothing reads those without all this."""

MOST_ATTEMPTS: Final = 35
"""As one digit can say: more are as many."""

SIGN_DIGITS: Final = 6
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE: Final = len(_DIGITS)
_CODE_DIGITS: Final = 4
_NOBODY: Final = _CODE_DIGITS * "0"
"""The code of no name."""

_BEYOND: Final = _BASE**3  # in either unit of a time
_ENDS_SINCE: Final = 1_577_836_800  # 2020, in seconds: six digits last until 2088
_FORM: Final = re.compile(
    rb"(?P<job>.*) (?P<end>\w{6}(?P<is_before_3>\w\w)?)(?P<handler>\w{4})(?P<worker>\w{4})"
    rb"(?P<attempts>\w{1,2})(?P<took>[.:]\w{1,4})(?P<age>[.:]\w{1,3})?",
    re.ASCII | re.DOTALL,
)
_TOOK_A_SECOND: Final = {".": 1000, ":": 1}
_AGED_SECONDS: Final = {".": 1, ":": 60}


End = Literal["handled", "ignored", "discarded", "superseded"]

_OTHER_ENDS: Final[dict[str, End]] = {"disc": "discarded", "newr": "superseded"}


class Told(NamedTuple):
    """How an event has ended.

    Attributes:
        at: when it ended, seconds since the epoch.
        handler: the code of its function; that of no name where it was ignored.
        worker: the code of whoever has handled it.
        attempts: how many it took, up to so many as are told; 0 where no handler has ended it.
        seconds: that the last one took.
        received_at: when the event was accepted, seconds since the epoch; ``None``: not known.
        received_within: seconds that this may be too late.
    """

    at: float
    handler: str
    worker: str
    attempts: int
    seconds: float
    received_at: float | None = None
    received_within: int = 1

    @property
    def end(self) -> End:
        """What has ended it: a handler, or that there is to be none, or what else may."""
        if not self.attempts:
            return _OTHER_ENDS.get(self.worker, "handled")
        return "ignored" if self.handler == _NOBODY else "handled"


# Apart from what stands behind it: in a backlog few events have both in common.
@lru_cache(4096)  # of a handler, most take the same few milliseconds
def handled(handler: str, worker: str, attempts: int, took: int) -> str:
    """What a worker says of an event that it has handled.

    Args:
        handler: the name of the function; empty where there was none.
        worker: its own code.
        attempts: how many it took.
        took: milliseconds of the last one.
    """
    times = _written(min(attempts, MOST_ATTEMPTS))
    last = (
        f".{_written(took)}" if took < _BEYOND else f":{_written(min(took // 1000, _BEYOND - 1))}"
    )
    return f"{code_of(handler)}{worker}{times}{last}"


@lru_cache(4096)
def aged(seconds: int | None) -> str:
    """What it says behind that of how long before the end the event was accepted.

    Nothing where that isn't known, or is more than a month.
    """
    if seconds is None:
        return ""
    if seconds < _BEYOND:
        return f".{_written(max(0, seconds))}"  # the clock of an ingress may be ahead
    return f":{_written(seconds // 60)}" if seconds // 60 < _BEYOND else ""


@lru_cache(4096)
def code_of(name: str) -> str:
    """Four characters that stand for the name of a handler or a worker."""
    number = int(_digest(name), 16) if name else 0
    return _written(number % _BASE**_CODE_DIGITS).rjust(_CODE_DIGITS, "0")


def sign_of(worker: str) -> str:
    """What the tokens of a worker's claims begin with: six hexadecimal digits."""
    return _digest(worker)[:SIGN_DIGITS]


def _digest(name: str) -> str:
    return blake2b(name.encode(), digest_size=8).hexdigest()


def read(named: bytes) -> tuple[bytes, Told | None, bytes]:
    """The job that a mark names behind ``done:``, what it tells, if it does, and the history."""
    named, line_break, history = named.partition(b"\n\x93")  # which is a list of three
    history = history and line_break[1:] + history
    found = _FORM.fullmatch(named)
    if found is None:
        return named, None, history
    try:
        return (
            found["job"],
            _told(*((each or b"").decode() for each in found.groups()[1:])),
            history,
        )
    except ValueError:
        return named, None, history


def _told(  # noqa: PLR0917  # in the order of the form
    end: str, is_before_3: str, handler: str, worker: str, attempts: str, took: str, age: str
) -> Told:
    at = int(end, _BASE) / 1000 if is_before_3 else float(int(end, _BASE) + _ENDS_SINCE)
    seconds = int(took[1:], _BASE) / _TOOK_A_SECOND[took[0]]
    told = Told(at, handler, worker, int(attempts, _BASE), seconds)
    if not age:
        return told
    within = _AGED_SECONDS[age[0]]
    return told._replace(received_at=at - int(age[1:], _BASE) * within, received_within=within)


def _written(number: int) -> str:
    text = _DIGITS[number % _BASE]
    while number := number // _BASE:
        text = _DIGITS[number % _BASE] + text
    return text
