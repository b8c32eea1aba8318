"""The arguments and options that several management commands have."""

import sys
from typing import TextIO

import click

from shared.config import Secret
from shared.durations import parse_duration
from shared.errors import SettingsError

endpoint_argument = click.argument("endpoint")
organization_option = click.option(
    "--organization",
    envvar="SELLFERN_ORGANIZATION",
    help="Whose API key it is; default the only organization of the endpoints file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="For machines: JSON lines.")
yes_option = click.option("--yes", is_flag=True, help="Don't ask.")
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
        text = _contents(file).strip()
    elif sys.stdin.isatty():
        text = click.prompt("secret (nothing: later)", "", hide_input=True, err=True).strip()
    else:
        return None
    if not text.isprintable():
        raise SettingsError("--secret-file", "one line with the secret", "something else")
    return Secret(text) if text else None


def _contents(file: TextIO) -> str:
    try:
        return file.read()
    except UnicodeDecodeError as exc:
        raise SettingsError("--secret-file", "one line with the secret", "no UTF-8") from exc
