"""What can be wrong: the one tree of errors that this project raises, and what probes tell."""

from collections.abc import Sequence
from dataclasses import dataclass


class SellfernError(Exception):
    """Everything that this project raises on purpose."""


class SettingsError(SellfernError):
    """A setting or a line of the endpoints file is missing or wrong.

    Attributes:
        setting: the environment variable or the key at fault.
        expected: what would have been right.
        got: what was there, already masked where it could hold a secret.
        line: the line of the file at fault, from 1, where a file is at fault.
        detail: lines to show below: where the author's code has failed.
    """

    def __init__(
        self, setting: str, expected: str, got: str, *, line: int | None = None, detail: str = ""
    ) -> None:
        self.setting = setting
        self.expected = expected
        self.got = got
        self.line = line
        self.detail = detail
        where = setting if line is None else f"{setting} line {line}"
        super().__init__(f"{where}: expected {expected}, got {got}")

    @property
    def errors(self) -> tuple["SettingsError", ...]:
        """Each thing that is wrong, with a line of its own: this one."""
        return (self,)


# One of its kind, so that whoever expects one setting to be wrong needs no second clause.
class SettingsErrors(SettingsError):
    """Several settings are wrong; as a text, a line each. What it says of one is of the first."""

    def __init__(self, errors: Sequence[SettingsError]) -> None:
        first = errors[0]
        super().__init__(first.setting, first.expected, first.got, line=first.line)
        self._errors = tuple(single for each in errors for single in each.errors)

    @property
    def errors(self) -> tuple[SettingsError, ...]:
        """Each thing that is wrong."""
        return self._errors

    def __str__(self) -> str:
        return "\n".join(map(str, self._errors))


class SecretDefect(SellfernError):
    """A text is no secret; the message holds nothing of it.

    Attributes:
        expected: what would have been right.
        got: what is wrong with it.
    """

    def __init__(self, expected: str, got: str) -> None:
        self.expected = expected
        self.got = got
        super().__init__(f"expected {expected}, got {got}")


class SignatureError(SellfernError):
    """A delivery is not signed by any secret of its endpoint.

    Attributes:
        code: ``signature_missing`` or ``signature_invalid``.
        body: the bytes that no signature fits, where they have been read.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.body: bytes | None = None
        super().__init__(message)


class EnvelopeError(SellfernError):
    """A signed body is not Sellfern's envelope."""


class Unavailable(SellfernError):
    """An event can't be accepted durably just now; the sender is to retry.

    Attributes:
        code: a stable name of the cause, as it stands in the 503 answer.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


class HandlerError(SellfernError):
    """A handler is registered or used in a way that can't work."""


class StateError(SellfernError):
    """A handler asked its organization's state for something that it can't do.

    Raised for a key or a value over its size limit, for a value that is not JSON (a number that
    is not finite isn't), for an expiry or a version that can't be, for an ``increment`` of
    something that is not a number, and for whatever is asked once the attempt has ended.
    """


class TransitionError(SellfernError):
    """Redis answered a transition with something that this version doesn't know."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason why a program is not ready: a stable code and a sentence."""

    code: str
    message: str
