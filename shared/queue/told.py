"""What the mark of an event that is done tells of how it was handled, in 24 characters at the most.

Behind the job stand a blank, when the event ended, codes of handler and worker, how many attempts
it took, a full stop, and the milliseconds of the last one: all to the base of 36. When it ended is
put in front by ``settle.lua``, which alone knows Redis's clock. A code is a digest of a name:
whoever knows the name knows whose it is. What no handler has ended took no attempts, and a word
stands for the worker: ``marks.lua`` has them.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

VERSION: Final = 2
"""Of marks, as a worker says which it reads; one that says nothing reads those without all this."""

SIGN_DIGITS: Final = 6
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_BASE: Final = len(_DIGITS)
_CODE_DIGITS: Final = 4
_NOBODY: Final = _CODE_DIGITS * "0"
"""The code of no name."""

_MOST_MILLISECONDS: Final = _BASE**4 - 1  # 28 minutes: longer is as long
_MOST_ATTEMPTS: Final = _BASE**2 - 1
_FORM: Final = re.compile(
    r"(?P<job>.*) (?P<at>\w{8})(?P<handler>\w{4})(?P<worker>\w{4})(?P<attempts>\w{1,2})"
    r"\.(?P<took>\w{1,4})",
    re.ASCII | re.DOTALL,
)


End = Literal["handled", "ignored", "discarded", "superseded"]

_OTHER_ENDS: Final[dict[str, End]] = {"disc": "discarded", "newr": "superseded"}


class Told(NamedTuple):
    """How an event has ended.

    Attributes:
        at: when it ended, seconds since the epoch.
        handler: the code of its function; that of no name where it was ignored.
        worker: the code of whoever has handled it.
        attempts: how many it took; 0 where no handler has ended it.
        seconds: that the last one took.
    """

    at: float
    handler: str
    worker: str
    attempts: int
    seconds: float

    @property
    def end(self) -> End:
        """What has ended it: a handler, or that there is to be none, or what else may."""
        if not self.attempts:
            return _OTHER_ENDS.get(self.worker, "handled")
        return "ignored" if self.handler == _NOBODY else "handled"


@lru_cache(4096)  # of a handler, most take the same few milliseconds
def tail(handler: str, worker: str, attempts: int, took: int) -> str:
    """What a worker says of an event that it has handled.

    Args:
        handler: the name of the function; empty where there was none.
        worker: its own code.
        attempts: how many it took.
        took: milliseconds of the last one.
    """
    times, last = min(attempts, _MOST_ATTEMPTS), min(took, _MOST_MILLISECONDS)
    return f"{code_of(handler)}{worker}{_written(times)}.{_written(last)}"


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


def read(named: str) -> tuple[str, Told | None]:
    """The job that a mark names behind ``done:``, and what it tells, if it does."""
    found = _FORM.fullmatch(named)
    if found is None:
        return named, None
    try:
        at, attempts, took = (int(found[each], _BASE) for each in ("at", "attempts", "took"))
    except ValueError:
        return named, None
    told = Told(at / 1000, found["handler"], found["worker"], attempts, took / 1000)
    return found["job"], told


def _written(number: int) -> str:
    text = _DIGITS[number % _BASE]
    while number := number // _BASE:
        text = _DIGITS[number % _BASE] + text
    return text
