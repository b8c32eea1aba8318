"""Reads typed settings from a mapping of names to texts, such as the environment."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

from shared.errors import SecretDefect, SettingsError, SettingsErrors
from shared.files.plain_text import decoded, no_text, trimmed
from shared.files.versions import content_of
from shared.settings.durations import format_duration, parse_duration
from shared.settings.secret import Secret, secret_in

NOTHING: Final = "nothing"
"""What a `SettingsError` says it got where a setting is missing."""

_FILE: Final = "_FILE"
_GOT_LENGTH: Final = 80
_LAST_PORT: Final = 65_535
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
# Python's own would take underscores, blanks and digits of any script.
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}")
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,4})?")

_Choice = TypeVar("_Choice", bound=str)
_Value = TypeVar("_Value")


class Reader:
    """Reads typed settings from texts.

    In a ``with`` block one that is wrong is noted, reading goes on with its default, and the end
    of the block raises all that were noted. Outside of one, the first raises at once.

    An empty text counts as unset. A default of None means that the setting must be there.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._errors: list[SettingsError] = []
        self._is_collecting = False
        self.shown: dict[str, str | None] = {}
        """Each setting that was read, as it may be shown; None where it is wrong."""

    def __enter__(self) -> Self:
        self._is_collecting = True
        return self

    def __exit__(self, _: object, exc: BaseException | None, __: object) -> None:
        self._is_collecting = False
        # Others, such as a bug, go on as they are: what was noted would only hide them.
        if isinstance(exc, SettingsError):  # one that there was no going on after
            self._errors.append(exc)
        elif exc is not None:
            return
        if len(self._errors) > 1:
            raise SettingsErrors(self._errors) from None
        if self._errors and exc is None:
            raise self._errors[0]

    def refuse(self, error: SettingsError) -> None:
        """Note what is wrong.

        Raises:
            SettingsError: nobody collects them.
        """
        if not self._is_collecting:
            raise error
        if str(error) not in map(str, self._errors):  # some are read by several programs
            self._errors.append(error)

    def note(self, action: Callable[[], object]) -> None:
        """Do something that may find settings wrong, and note these."""
        try:
            action()
        except SettingsError as exc:
            self.refuse(exc)

    def are_good(self, *names: str) -> bool:
        """Whether none of these was refused, so that they can be held against each other."""
        return not any(error.setting.removesuffix(_FILE) in names for error in self._errors)

    def is_set(self, name: str) -> bool:
        """Whether somebody has set it, to whatever."""
        return bool(self._environ.get(name))

    def parsed(
        self,
        name: str,
        default: _Value | None,
        parse: Callable[[str], _Value],
        expected: str,
        *,
        show: Callable[[_Value], str] = str,
    ) -> _Value:
        """Give what ``parse`` makes of a text.

        Args:
            name: the setting.
            default: its value where it isn't set.
            parse: raises ValueError, or a SettingsError that says more, for a wrong text.
            expected: what a wrong text should have been.
            show: writes a value as it may be shown.
        """
        self.shown[name] = None
        text = self._environ.get(name, "")
        if not text and default is not None:
            self.shown[name] = show(default)
            return default
        try:
            if text:
                value = parse(text)
                self.shown[name] = show(value)
                return value
            error = SettingsError(name, expected, NOTHING)
        except SettingsError as exc:
            error = exc
        except ValueError:
            # The text is shown: a secret never comes here, since its errors are no ValueError.
            error = _wrong(name, expected, text)
        if default is None:
            raise error
        self.refuse(error)
        return default

    def text(
        self,
        name: str,
        default: str | None = None,
        *,
        expected: str = "a text",
        pattern: str | None = None,
    ) -> str:
        """Give a text, which matches ``pattern`` as a whole where one is given."""

        def parse(text: str) -> str:
            if pattern is not None and re.fullmatch(pattern, text) is None:
                raise ValueError
            return text

        return self.parsed(name, default, parse, expected)

    def name_of(self, name: str) -> str:
        """The setting that somebody has set: this one, or that which names a file in its place."""
        return name + _FILE if self.is_set(name + _FILE) else name

    def file_of(self, name: str) -> tuple[Path, bytes]:
        """The file that holds a setting in place of a text, with its content.

        Args:
            name: the setting; the one that names the file ends in ``_FILE``, and is set.

        Raises:
            SettingsError: it can't be read, or the text is set as well.
        """
        # To prefer one would let whoever changes the other one wonder.
        if self.is_set(name):
            raise SettingsError(name, f"either {name} or {name}{_FILE}", "both")
        path = Path(self.text(name + _FILE))
        try:
            return path, content_of(path)
        except (OSError, ValueError) as exc:
            raise unreadable(path, name + _FILE, exc) from None

    def secret(self, name: str, default: str | None = None) -> Secret:
        """Give a secret, or that of the file which the setting ``{name}_FILE`` names.

        One whose default is the empty text is optional, and false if unset.
        """
        unset = None if default is None else Secret(default)
        if path := self.text(name + _FILE, ""):
            return self.parsed(
                *(name + _FILE, unset, lambda _: self._secret_in_file(name), "a secret"),
                show=lambda _: path,
            )

        def parse(text: str) -> Secret:
            if not trimmed(text) and unset is not None:
                return unset
            try:
                return Secret(secret_in(text, is_free=True))
            except SecretDefect as exc:  # no ValueError: what is wrong would be shown
                raise SettingsError(name, exc.expected, exc.got) from None

        return self.parsed(
            name, unset, parse, "a secret", show=lambda secret: str(secret) if secret else ""
        )

    def _secret_in_file(self, name: str) -> Secret:
        path, content = self.file_of(name)
        try:
            return Secret(secret_in(decoded(content), is_free=True))
        except UnicodeDecodeError as exc:
            raise SettingsError(name + _FILE, "a secret", f"{path} ({no_text(exc)})") from None
        except SecretDefect as exc:
            raise SettingsError(name + _FILE, exc.expected, f"{exc.got} in {path}") from None

    def integer(
        self,
        name: str,
        default: int | None,
        *,
        minimum: int | None = None,
        maximum: int | None = None,
        noun: str = "a whole number",
    ) -> int:
        """Give a whole number within its bounds, both of them allowed."""

        def parse(text: str) -> int:
            if not _INTEGER.fullmatch(text) or not _within(int(text), minimum, maximum):
                raise ValueError
            return int(text)

        return self.parsed(name, default, parse, noun + _bounds(minimum, maximum))

    def port(self, name: str, default: int | None) -> int:
        """Give a TCP port; 0 lets the system pick one."""
        return self.integer(name, default, minimum=0, maximum=_LAST_PORT, noun="a port")

    def number(
        self,
        name: str,
        default: float | None,
        *,
        minimum: float | None = None,
        maximum: float | None = None,
    ) -> float:
        """Give a finite number within its bounds, both of them allowed."""

        def parse(text: str) -> float:
            value = float(text) if _NUMBER.fullmatch(text) else math.nan
            if not math.isfinite(value) or not _within(value, minimum, maximum):
                raise ValueError
            return value

        return self.parsed(name, default, parse, "a number" + _bounds(minimum, maximum))

    def duration(
        self,
        name: str,
        default: str | None,
        *,
        minimum: str | None = None,
        maximum: str | None = None,
    ) -> float:
        """Give seconds, from a text such as ``30s`` or ``30``; bounds and default are texts too."""
        least = None if minimum is None else parse_duration(minimum)
        most = None if maximum is None else parse_duration(maximum)

        def parse(text: str) -> float:
            seconds = parse_duration(text)
            if not _within(seconds, least, most):
                raise ValueError
            return seconds

        seconds = None if default is None else parse_duration(default)
        expected = f"a duration{_bounds(minimum, maximum)} (such as 200ms, 30s, 5m, 2h or 7d)"
        return self.parsed(name, seconds, parse, expected, show=format_duration)

    def choice(self, name: str, options: Sequence[_Choice], default: _Choice | None) -> _Choice:
        """Give one of the options, which are in lower case; the text may be in any."""

        def parse(text: str) -> _Choice:
            return options[options.index(text.lower())]

        return self.parsed(name, default, parse, "one of " + ", ".join(options))

    def flag(self, name: str, default: bool) -> bool:  # noqa: FBT001  # a default, as elsewhere
        """Give a yes or a no: true, yes, on, 1 or false, no, off, 0."""

        def parse(text: str) -> bool:
            if text.lower() not in _TRUE | _FALSE:
                raise ValueError
            return text.lower() in _TRUE

        return self.parsed(name, default, parse, "true or false", show=lambda yes: str(yes).lower())


class Settings:
    """Several settings that are read together."""

    __slots__ = ()

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read them, and nothing else.

        Raises:
            SettingsError: some are wrong, by themselves or against others.
        """
        with Reader(environ) as reader:
            return cls.from_reader(reader)

    @classmethod
    def from_reader(cls, reader: Reader) -> Self:
        """Read them in its block."""
        raise NotImplementedError


def unreadable(path: Path, setting: str, error: object) -> SettingsError:
    """What to say of a file that can't be read."""
    why = getattr(error, "strerror", None) or "not a path"
    return SettingsError(setting, "a readable file", f"{path} ({why})")


def _wrong(name: str, expected: str, text: str) -> SettingsError:
    shown = text if len(text) <= _GOT_LENGTH else text[: _GOT_LENGTH - 1] + "…"
    return SettingsError(name, expected, repr(shown))


def _within(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _bounds(minimum: object, maximum: object) -> str:
    if minimum is None and maximum is None:
        return ""
    if maximum is None:
        return f" of at least {minimum}"
    if minimum is None:
        return f" of at most {maximum}"
    return f" from {minimum} to {maximum}"
