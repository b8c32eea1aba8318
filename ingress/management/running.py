"""Runs a management command: its outcome becomes lines and an exit code."""

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, Final

import click

from ingress.management.api_errors import EventUnavailable, OperationUnavailable, OutcomeUnknown
from ingress.management.client import RemoteEndpoint
from ingress.management.context import Reading, Unfinished, Writing, tell
from ingress.management.dashboard import manual_step
from ingress.management.journal import OutcomeTooOld
from shared import display
from shared.errors import SellfernError, SettingsError
from shared.settings.config import CommonSettings, Secret

REFUSED: Final = 1
"""The exit code where Sellfern refuses or doesn't answer."""

UNAVAILABLE: Final = 3
"""The exit code where the API Reference doesn't list the operation or the event."""

UNFINISHED: Final = 4
"""The exit code where the same command has to be run again."""

INTERRUPTED: Final = 130


def run(work: Coroutine[Any, Any, None], command: str, endpoint_id: str | None = None) -> None:
    """Do it; what goes wrong is a line on stderr and an exit code.

    Raises:
        SystemExit: something went wrong.
    """
    try:
        asyncio.run(work)
    except SettingsError as exc:
        display.refuse(exc)
    except OperationUnavailable as exc:
        _fail(exc, UNAVAILABLE, manual_step(command, endpoint_id, _endpoints_file()))
    except EventUnavailable as exc:
        _fail(exc, UNAVAILABLE)
    except (OutcomeUnknown, OutcomeTooOld, Unfinished) as exc:
        _fail(exc, UNFINISHED)
    except SellfernError as exc:
        _fail(exc, REFUSED)
    except KeyboardInterrupt:
        tell("interrupted; the same command goes on")
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
    action: str, context: Reading, endpoint_id: str, remote: RemoteEndpoint
) -> dict[str, object]:
    """What was done to which endpoint, for machines."""
    return {
        "action": action,
        "endpoint": endpoint_id,
        "organization": context.organization,
        "remote_id": remote.id,
        "url": remote.url,
    }


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
