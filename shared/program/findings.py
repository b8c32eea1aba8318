"""What a look at a program's surroundings has found, for people, machines and the log."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import click
import msgspec

from shared.display import escape_controls, json_line, show_below
from shared.endpoints.endpoint import Endpoints
from shared.errors import SettingsError
from shared.observe.logs import get_logger
from shared.shadowing import strangers

Level = Literal["ok", "warning", "error"]
"""``error``: the program would not start, would wait until Redis has mended itself, or some of what
it is there for would not work."""

_log = get_logger()
_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: how it is.
        subject: what was looked at, such as ``settings``, ``endpoints`` or ``redis``.
        code: a stable name of what was found.
        message: a sentence.
        detail: lines to show below it.
    """

    level: Level
    subject: str
    code: str
    message: str
    detail: str = ""


def look(
    found: list[Finding], subject: str, load: Callable[[], _Part], tell: Callable[[_Part], str]
) -> _Part | None:
    """Load something that may be wrong, and note how it is.

    Args:
        found: where it is noted: an error for each thing wrong, or that it is fine.
        subject: what it is called.
        load: loads it; raises SettingsError where it can't.
        tell: says of it, in a sentence, what is worth knowing.

    Returns:
        what was loaded; None where it can't be.
    """
    try:
        loaded = load()
    except SettingsError as exc:
        # A line for each: what is wrong is told at once, not one thing a try.
        code = f"{subject}_invalid"
        found += [Finding("error", subject, code, str(e), e.detail) for e in exc.errors]
        return None
    found.append(Finding("ok", subject, f"{subject}_valid", tell(loaded)))
    return loaded


def counted(endpoints: Endpoints) -> str:
    """How many endpoints there are, and how many organizations behind them."""
    return f"endpoints: {len(endpoints)}, organizations: {len(endpoints.organizations)}"


def shadows() -> Iterator[Finding]:
    """Warn where a package of this project would be taken for somebody else's."""
    for name, place in strangers():
        message = (
            f"`python -m {name}` would run {place}, not this project's: "
            f"use sellfern-{name}, or rename that"
        )
        yield Finding("warning", "packages", "package_shadowed", message)


def show(finding: Finding, *, as_json: bool) -> None:
    """Print it to stdout: a row of a table, or a JSON line."""
    if as_json:
        row = msgspec.to_builtins(finding)
        click.echo(json_line(row if finding.detail else {n: row[n] for n in row if n != "detail"}))
        return
    about = escape_controls(f"{finding.code}: {finding.message}")
    click.echo(f"{finding.level:<8}{finding.subject:<10} {about}")
    show_below(finding.detail)


def log_warnings(findings: Iterable[Finding]) -> None:
    """Log the warnings among them, a line each."""
    for finding in findings:
        if finding.level == "warning":
            _log.warning(finding.code, subject=finding.subject, message=finding.message)


def missing_secrets(endpoints: Endpoints, consequence: str) -> Iterator[Finding]:
    """The secrets that can't be had.

    What can't be read is a warning, since it may come by itself, as a mount does; what is no secret
    is an error, since it doesn't.

    Args:
        endpoints: that name them.
        consequence: what their absence does, such as ``answers 503``.
    """
    for secret in endpoints.missing:
        level: Level = "error" if secret.cause == "unusable" else "warning"
        message = f"{secret.whose} {consequence} until it is mended: {secret.error}"
        yield Finding(level, "endpoints", f"secret_{secret.cause}", message)
