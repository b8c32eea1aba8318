"""What a look at a program's surroundings has found, for people, machines and the log."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import click
import msgspec

from shared.display import escape_controls, json_line
from shared.logs import get_logger

Level = Literal["ok", "warning", "error"]
"""``error``: the program would not start."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how it is.
        subject: what was looked at, such as ``settings``, ``endpoints`` or ``redis``.
        code: a stable name of what was found.
        message: a sentence.
    """

    level: Level
    subject: str
    code: str
    message: str


def show(finding: Finding, *, as_json: bool) -> None:
    """Print it to stdout: a row of a table, or a JSON line."""
    if as_json:
        click.echo(json_line(msgspec.to_builtins(finding)))
        return
    about = escape_controls(f"{finding.code}: {finding.message}")
    click.echo(f"{finding.level:<8}{finding.subject:<10} {about}")


def log_warnings(findings: Iterable[Finding]) -> None:
    """Log the warnings among them, a line each."""
    for finding in findings:
        if finding.level == "warning":
            _log.warning(finding.code, subject=finding.subject, message=finding.message)
