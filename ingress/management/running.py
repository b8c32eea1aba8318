"""What all management commands share: their options, how they run, how they say what came of it."""

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Final, NamedTuple, TextIO, TypeAlias

import click

from ingress.http.receive import ROUTE
from ingress.management.acting import COME_AGAIN
from ingress.management.api_errors import EventUnavailable, OperationUnavailable
from ingress.management.context import Writing, tell
from shared import display
from shared.errors import SecretDefect, SellfernError, SettingsError
from shared.files.plain_text import no_text, trimmed
from shared.settings.config import CommonSettings
from shared.settings.durations import parse_duration
from shared.settings.secret import Secret, secret_in

_Work: TypeAlias = Coroutine[Any, Any, None]

organization_option = click.option(
    "--organization",
    envvar="SELLFERN_ORGANIZATION",
    help="Whose API key it is; default the only organization of the endpoints file.",
)
secret_file_option = click.option(
    "--secret-file",
    # Opened when it is read: where Sellfern shows the secret, nobody needs the file.
    type=click.File(encoding="utf-8", lazy=True),
    help="The secret, copied from Sellfern's dashboard; - is stdin.",
)


class Target(NamedTuple):
    """The endpoint that a command is about.

    Attributes:
        endpoint: its id here.
        remote_id: Sellfern's, where there are several.
        organization: whose API key it is, if that is said.
    """

    endpoint: str
    remote_id: str | None
    organization: str | None


def about_an_endpoint(command: Callable[..., _Work]) -> Callable[..., _Work]:
    """Let a command take the arguments that say which endpoint it is about, as one `Target`."""

    @click.argument("endpoint")
    @click.option("--id", "remote_id", help="Sellfern's id, where there are several.")
    @organization_option
    @wraps(command)
    def take(
        endpoint: str, remote_id: str | None, organization: str | None, **options: Any
    ) -> _Work:
        return command(Target(endpoint, remote_id, organization), **options)

    return take


def seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    """Read a duration such as ``10m``."""
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise click.BadParameter(f"expected {exc}, got {text!r:.40}") from None


def copied_secret(file: TextIO | None) -> Secret | None:
    """The secret that somebody gives, from a file or by hand where there is a terminal.

    Raises:
        SettingsError: it can't be one.
    """
    if file is not None:
        text = _contents(file)
    elif sys.stdin.isatty():
        text = click.prompt("secret (nothing: later)", "", hide_input=True, err=True)
    else:
        return None
    if not trimmed(text):
        return None
    try:
        return Secret(secret_in(text, is_free=True))
    except SecretDefect as exc:
        raise SettingsError("--secret-file", exc.expected, exc.got) from None


def _contents(file: TextIO) -> str:
    try:
        return file.read()
    except UnicodeDecodeError as exc:
        raise SettingsError("--secret-file", "one line with the secret", no_text(exc)) from exc


_OPEN: Final = (
    "In Sellfern's dashboard, as the organization, open its webhook endpoints{which}, and "
)
_STEPS: Final = {
    "list": "compare them with the ones above.",
    "enable": "enable it.",
    "disable": "disable it.",
    "remove": "remove it. Then take its [[endpoint]] table out of {file}.",
    "test": "send a test delivery.",
    "deliveries": "look at its latest deliveries.",
    "register": "create one with the URL https://YOUR-HOST{route}{endpoint} and copy its secret; "
    "then add to {file}:\n"
    '  [[endpoint]]\n  id = "{endpoint}"\n  organization_id = "ORGANIZATION"\n'
    '  secrets = ["THE-SECRET"]',
    "rotate": "rotate it in these steps:\n"
    "  1. Create a second endpoint, disabled, for the same events, at the same URL with "
    "?rotation=2 (or the next number) behind it, and copy its secret.\n"
    "  2. Put that secret in front of the old one in {file}; the ingress reads it within a "
    "second.\n"
    "  3. Enable the second endpoint, and wait until deliveries to it are answered with 202.\n"
    "  4. Remove the first endpoint.\n"
    "  5. Give the old secret an end: "
    '{{ value = "THE-OLD-SECRET", until = 2026-12-01T00:00:00Z }}.',
}
_IMPORT: Final = (
    "If Sellfern's API Reference lists the operation by now, import its OpenAPI document, and "
    "this command works: python -m ingress reference import FILE"
)


def manual_step(command: str, endpoint_id: str | None, file: str) -> str:
    """How to do by hand what a command can't do, and how it comes to be able to.

    Args:
        command: such as ``rotate``.
        endpoint_id: which endpoint, if the command is for one.
        file: the endpoints file.
    """
    known = endpoint_id is not None and command != "register"
    which = f", choose the one whose URL ends in {ROUTE}{endpoint_id}" if known else ""
    step = _STEPS[command].format(endpoint=endpoint_id, route=ROUTE, file=file)
    return f"{_OPEN.format(which=which)}{step}\n{_IMPORT}"


REFUSED: Final = 1
"""The exit code where Sellfern refuses or doesn't answer."""

UNAVAILABLE: Final = 3
"""The exit code where the API Reference doesn't list the operation or the event."""

UNFINISHED: Final = 4
"""The exit code where the same command has to be run again."""

INTERRUPTED: Final = 130


def running(command: Callable[..., _Work]) -> Callable[..., None]:
    """Let a coroutine be a command; what goes wrong is a line on stderr and an exit code."""

    @wraps(command)
    def run(**options: Any) -> None:
        name = str(click.get_current_context().info_name)
        _run(command(**options), name, options.get("endpoint"))

    return run


def _run(work: _Work, command: str, endpoint_id: str | None) -> None:
    try:
        asyncio.run(work)
    except SettingsError as exc:
        display.refuse(exc)
    except OperationUnavailable as exc:
        # What the Reference doesn't list can be done by hand all the same.
        _fail(exc, UNAVAILABLE, manual_step(command, endpoint_id, _endpoints_file()))
    except EventUnavailable as exc:
        _fail(exc, UNAVAILABLE)
    except COME_AGAIN as exc:
        _fail(exc, UNFINISHED)
    except SellfernError as exc:
        _fail(exc, REFUSED)
    # Whatever was under way stands in the journal, so nothing is lost.
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on")
        # 128 and SIGINT's number, as scripts know it of shells.
        raise SystemExit(INTERRUPTED) from None


def done(
    line: str, about: dict[str, object], *, as_json: bool, secret: Secret | None = None
) -> None:
    """Say on stdout what was done; a secret only where it is asked for."""
    if as_json:
        more = {} if secret is None else {"secret": secret.reveal()}
        click.echo(display.json_line({**about, **more}))
        return
    click.echo(display.escape_controls(line))
    if secret is not None:
        click.echo(display.escape_controls(secret.reveal()))


def about(
    action: str, endpoint_id: str, organization: str, remote_id: str, **more: object
) -> dict[str, object]:
    """What was done to which endpoint, for machines."""
    told = {"action": action, "endpoint": endpoint_id, "organization": organization}
    return {**told, "remote_id": remote_id, **more}


def warn_of_readers(context: Writing) -> None:
    """Say so where the secrets in the endpoints file are open to others."""
    if context.editor.is_read_by_others:
        tell(f"warning: others on this machine can read {context.editor.path} and its secrets")


def _endpoints_file() -> str:
    return str(CommonSettings.from_environ(os.environ).endpoints_file)


def _fail(error: SellfernError, code: int, more: str = "") -> None:
    click.echo(f"error: {display.escape_controls(str(error))}", err=True)
    if more:
        click.echo(more, err=True)
    raise SystemExit(code) from error
