"""The arguments and options that several management commands have."""

import sys
from typing import TextIO

import click

from shared.errors import SecretDefect, SettingsError
from shared.files.plain_text import no_text, trimmed
from shared.settings.config import Secret
from shared.settings.durations import parse_duration
from shared.settings.secret_text import secret_in

endpoint_argument = click.argument("endpoint")
organization_option = click.option(
    "--organization",
    envvar="SELLFERN_ORGANIZATION",
    help="Whose API key it is; default the only organization of the endpoints file.",
)
id_option = click.option("--id", "remote_id", help="Sellfern's id, where there are several.")
secret_file_option = click.option(
    "--secret-file",
    type=click.File(encoding="utf-8", lazy=True),
    help="The secret, copied from Sellfern's dashboard; - is stdin.",
)


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
