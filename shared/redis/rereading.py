"""What is made of files that change while a program runs."""

from collections.abc import Callable
from typing import Generic, TypeVar

from shared.errors import SettingsError
from shared.observe.logs import get_logger

_Seen = TypeVar("_Seen")
_Value = TypeVar("_Value")

_log = get_logger()


class Reread(Generic[_Seen, _Value]):
    """What was made of some files, and is made anew once they have changed.

    Whoever replaces them may be half-way, and there may be several: what can't be used is refused,
    and the last that could be stays in use until they change again.

    Args:
        seen: what was seen of the files before the value was made of them, so that a change in
            between is noticed.
        value: what was made of them.
        make: makes a value of what is seen; raises SettingsError where it can't be used.
        reread: the log's word for another value.
        refused: that for what can't be used.
    """

    def __init__(
        self,
        seen: _Seen,
        value: _Value,
        make: Callable[[_Seen], _Value],
        *,
        reread: str,
        refused: str,
    ) -> None:
        self._seen, self._value, self._make = seen, value, make
        self._words = reread, refused
        self._refused = ""

    def of(self, seen: _Seen) -> _Value:
        """The value, where this is what is seen of the files now."""
        if seen != self._seen:
            self._remake(seen)
        return self._value

    def _remake(self, seen: _Seen) -> None:
        reread, refused = self._words
        try:
            value = self._make(seen)
        except SettingsError as exc:
            if str(exc) != self._refused:  # each connection tries anew; one line will do
                _log.error(refused, error=str(exc))
            self._refused = str(exc)
            return
        # A file that was only touched is no news, but for whoever was told that it can't be used.
        if value != self._value or self._refused:
            _log.info(reread)
        self._value, self._seen, self._refused = value, seen, ""
