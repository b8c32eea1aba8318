"""A file of environment variables, such as ``.env``, and the option that names it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import click

from shared import display
from shared.errors import SettingsError

_META: Final = "sellfern.env_file"
_LINE: Final = re.compile(r"(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*)")
_SINGLE: Final = re.compile(r"'(?P<text>[^']*)'\s*(?:#.*)?")
_DOUBLE: Final = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"\s*(?:#.*)?')
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


def parse_env_file(text: str, path: Path) -> Mapping[str, str]:
    """Read lines of ``NAME=VALUE``, where a value may stand in single or double quotes.

    Blank lines and those that begin with ``#`` say nothing, nor does what comes after `` #``; a
    line may begin with ``export``. Nothing is filled in for ``${…}``, so it is refused outside of
    single quotes rather than taken for a value.

    Args:
        text: what the file holds.
        path: where it is, for messages.

    Raises:
        SettingsError: a line is none of these; no message holds a value.
    """
    found: dict[str, str] = {}
    # A byte order mark, as Windows' editors put it there.
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise _wrong(path, number, "NAME=VALUE", "something else")
        value = _value(match["value"])
        if value is None:
            expected = f"one value for {match['name']}, or quotes that close on its line"
            raise _wrong(path, number, expected, "something else")
        if _fills_in(match["value"]):
            expected = f"a value of {match['name']} without ${{…}}, or one in single quotes"
            raise _wrong(path, number, expected, "one that nothing is filled in for")
        found[match["name"]] = value
    return found


def read_env_file(path: Path) -> Mapping[str, str]:
    """The variables of a file.

    Raises:
        SettingsError: it can't be read, or a line of it is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise SettingsError("--env-file", "a readable file", f"{path} ({exc.strerror})") from exc
    except UnicodeDecodeError as exc:
        raise SettingsError("--env-file", "a readable file", f"{path} (not UTF-8)") from exc
    return parse_env_file(text, path)


def names_from_file() -> Mapping[str, Path]:
    """The variables of this command that are from the file of its ``--env-file``."""
    found: Mapping[str, Path] = click.get_current_context().meta.get(_META, {})
    return found


def _apply(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Set what the environment leaves open, for the time of the command."""
    if path is None:
        return
    try:
        variables = read_env_file(path)
    except SettingsError as exc:
        display.refuse(exc)
    # The environment goes first: whoever sets a variable for one run means that.
    taken = {name: text for name, text in variables.items() if not os.environ.get(name)}
    before = dict(os.environ)
    os.environ.update(taken)
    context.meta[_META] = {**context.meta.get(_META, {}), **dict.fromkeys(taken, path)}

    # Tests and others call commands within a process that goes on.
    @context.call_on_close
    def restore() -> None:
        for name in taken:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in taken if name in before})


def offer_env_file(command: click.Command) -> None:
    """Let a program take ``--env-file``, before each of its commands and behind it.

    Args:
        command: the program's, once all of its commands are there.
    """
    command.params.append(
        click.Option(
            ["--env-file"],
            type=click.Path(path_type=Path),
            callback=_apply,
            expose_value=False,
            is_eager=True,
            help="Read variables from a file such as .env; what the environment sets comes first.",
        )
    )
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        offer_env_file(each)


def _fills_in(text: str) -> bool:
    """Whether a shell would put something in the place of a ``${…}``."""
    if text.startswith("'"):
        return False
    return "${" in (_ESCAPE.sub("", text) if text.startswith('"') else text)


def _value(text: str) -> str | None:
    """What a value means; None where a quote is left open or something follows it."""
    if text.startswith("'"):
        match = _SINGLE.fullmatch(text)
        return match["text"] if match else None
    if text.startswith('"'):
        match = _DOUBLE.fullmatch(text)
        return _ESCAPE.sub(_unescaped, match["text"]) if match else None
    return _COMMENT.sub("", text, count=1).rstrip()


def _unescaped(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[1])


def _wrong(path: Path, line: int, expected: str, got: str) -> SettingsError:
    return SettingsError(f"--env-file ({path})", expected, got, line=line)
