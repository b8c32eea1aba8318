"""The command line of the simulator."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom
from typing import Any, TypeVar

import click
import uvloop

from deploy.sellfern.api_key import EXPECTED as API_KEY
from deploy.sellfern.api_key import ApiKey, ApiKeys, parse_api_key
from deploy.sellfern.fault import EXPECTED as FAULT
from deploy.sellfern.fault import parse_fault
from deploy.sellfern.known_endpoints import KnownEndpoints
from deploy.sellfern.program import run
from deploy.sellfern.settings import SimulatorSettings
from shared.display import fail, refuse
from shared.endpoints.file import EndpointsFile
from shared.errors import SettingsError
from shared.observe import logs
from shared.settings.config import LogFormat, LogLevel, Reader
from shared.settings.durations import EXPECTED as DURATION
from shared.settings.durations import parse_duration

_Parsed = TypeVar("_Parsed")


def _parsing(parse: Callable[[str], _Parsed]) -> Callable[..., Any]:
    """A click callback that parses an option's text or texts."""

    def callback(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(parse(text) for text in value)
            return None if value is None else parse(value)
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from None

    return callback


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ValueError(f"expected {exc}") from None


_share = click.FloatRange(0, 1)
_duration_option: dict[str, Any] = {"metavar": "DURATION", "callback": _parsing(_duration)}


@click.command(epilog=f"DURATION is {DURATION}.")
@click.version_option(package_name="sellfern-webhooks")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8090,
    show_default=True,
    help="Port to listen on; 0 picks one and logs it.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    required=True,
    metavar=API_KEY.partition(" ")[0],
    callback=_parsing(parse_api_key),
    help=f"A key and whose it is: {API_KEY}. May be repeated.",
)
@click.option(
    "--endpoints-file",
    type=click.Path(path_type=Path),
    help="Register all endpoints of this file, with their secrets.",
)
@click.option(
    "--ingress",
    default="http://127.0.0.1:8080",
    show_default=True,
    help="Where the endpoints of --endpoints-file are.",
)
@click.option(
    "--rate", type=click.FloatRange(0), default=0.0, help="Events a second; default none."
)
@click.option("--duplicates", type=_share, default=0.0, help="Part delivered twice, 0 to 1.")
@click.option("--disorder", type=_share, default=0.0, help="Part held back for others to overtake.")
@click.option("--bad-signatures", type=_share, default=0.0, help="Part with a forged copy beside.")
@click.option("--latency", default="0", help="Of the management API.", **_duration_option)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    callback=_parsing(parse_fault),
    help=f"Of the management API: {FAULT}. KIND is error, gateway, hang, cut or rate_limit.",
)
@click.option("--seed", type=int, help="Of everything that is drawn; default another each time.")
@click.option("--events", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--for", "seconds", help="Stop after this time.", **_duration_option)
@click.option("--hide-secret", is_flag=True, help="Show a new endpoint's secret on the page only.")
@click.option("--same-url", is_flag=True, help="Let an organization register a URL twice.")
@click.option("--require-idempotency-key", is_flag=True, help="Refuse a write without one.")
@click.option("--rate-limit", type=click.IntRange(1), help="Requests a second for each API key.")
@click.option(
    "--attempts",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Until a delivery is given up.",
)
@click.option(
    "--timeout", default="10s", show_default=True, help="Of an attempt.", **_duration_option
)
@click.option(
    "--backoff",
    default="1s",
    show_default=True,
    help="Before the second attempt; doubled with each.",
    **_duration_option,
)
def _command(
    *,
    host: str,
    port: int,
    api_keys: tuple[ApiKey, ...],
    endpoints_file: Path | None,
    ingress: str,
    seconds: float | None,
    **knobs: Any,
) -> None:
    """Be a Sellfern to develop against, until told to stop (SIGTERM).

    The management API, its OpenAPI document at /openapi.json, and a page at /. Send an event by
    the page's button or by: curl -d type=order.updated -d organization=org_123 URL/send
    """
    _configure_logs()
    knobs["seed"] = SystemRandom().getrandbits(32) if knobs["seed"] is None else knobs["seed"]
    try:
        keys = ApiKeys(api_keys)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--api-key") from None
    settings = SimulatorSettings(**knobs)
    known = None
    if endpoints_file is not None:
        known = KnownEndpoints(EndpointsFile(endpoints_file, os.environ).load(), ingress)
    uvloop.run(run(keys, settings, known, host=host, port=port, seconds=seconds))


def _configure_logs() -> None:
    reader = Reader(os.environ)
    levels: tuple[LogLevel, ...] = ("debug", "info", "warning", "error", "critical")
    formats: tuple[LogFormat, ...] = ("console", "json")
    logs.configure(
        level=reader.choice("LOG_LEVEL", levels, "info"),
        fmt=reader.choice("LOG_FORMAT", formats, "console" if sys.stderr.isatty() else "json"),
    )


def main() -> None:
    """Run the command; a wrong argument is one line on stderr and exit code 2."""
    try:
        _command(standalone_mode=False)
    except click.ClickException as exc:
        fail(exc.format_message())
    except SettingsError as exc:
        refuse(exc)
