"""The command line of the simulator: ``python -m deploy.sellfern``."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from random import SystemRandom
from typing import Any

import click
import uvloop

from deploy.sellfern import api_key, fault
from deploy.sellfern.answer import Refused
from deploy.sellfern.api_key import ApiKey, ApiKeys
from deploy.sellfern.server import opened
from deploy.sellfern.settings import SimulatorSettings
from deploy.sellfern.vendor import EVENTS, Sellfern
from shared.display import fail, refuse
from shared.endpoints.endpoint import Endpoint
from shared.endpoints.file import EndpointsFile
from shared.errors import SettingsError
from shared.observe import logs
from shared.observe.logs import get_logger
from shared.program.stopping import stop_signal
from shared.sellfern.scheme import SELLFERN
from shared.settings import durations
from shared.settings.config import LogFormat, LogLevel
from shared.settings.reader import Reader

_log = get_logger()


def _parsing(parse: Callable[[str], object], message: str = "{}") -> Callable[[str], object]:
    """The same as an option's type: click would tell the text, and not what was expected."""

    def parsed(text: str) -> object:
        try:
            return parse(text)
        except ValueError as exc:
            raise click.BadParameter(message.format(exc)) from None

    return parsed


_share = click.FloatRange(0, 1)
# The message of a duration is what was expected alone, as a wrong setting's line wants it.
_duration = _parsing(durations.parse_duration, "expected {}")
_duration_option: dict[str, Any] = {"metavar": "DURATION", "type": _duration}


@click.command(epilog=f"DURATION is {durations.EXPECTED}.", context_settings={"show_default": True})
@click.version_option(package_name="sellfern-webhooks")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8090,
    help="Port to listen on; 0 picks one and logs it.",
)
@click.option(
    "--api-key",
    "api_keys",
    multiple=True,
    required=True,
    metavar=api_key.EXPECTED.partition(" ")[0],
    type=_parsing(api_key.parse_api_key),
    help=f"A key and whose it is: {api_key.EXPECTED}. May be repeated.",
)
@click.option(
    "--endpoints-file",
    type=click.Path(path_type=Path),
    help="Register all endpoints of this file, with their secrets.",
)
@click.option(
    "--ingress",
    default="http://127.0.0.1:8080",
    help="Where the endpoints of --endpoints-file are.",
)
@click.option("--rate", type=click.FloatRange(0), help="Events a second; default none.")
@click.option("--duplicates", type=_share, help="Part delivered twice, 0 to 1.")
@click.option("--disorder", type=_share, help="Part held back for others to overtake.")
@click.option("--bad-signatures", type=_share, help="Part with a forged copy beside.")
@click.option("--latency", help="Of the management API.", **_duration_option)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="FAULT",
    type=_parsing(fault.parse_fault),
    help=f"Of the management API: {fault.EXPECTED}. "
    "KIND is error, gateway, hang, cut or rate_limit.",
)
@click.option("--seed", type=int, help="Of everything that is drawn; default another each time.")
@click.option("--events", type=click.IntRange(1), help="Stop after so many events.")
@click.option("--for", "seconds", help="Stop after this time.", **_duration_option)
@click.option("--hide-secret", is_flag=True, help="Show a new endpoint's secret on the page only.")
@click.option("--same-url", is_flag=True, help="Let an organization register a URL twice.")
@click.option("--require-idempotency-key", is_flag=True, help="Refuse a write without one.")
@click.option("--rate-limit", type=click.IntRange(1), help="Requests a second for each API key.")
@click.option("--attempts", type=click.IntRange(1), default=5, help="Until a delivery is given up.")
@click.option("--timeout", default="10s", help="Of an attempt.", **_duration_option)
@click.option(
    "--backoff",
    default="1s",
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
    # Drawn here and logged, so that whatever happened can happen once more.
    knobs["seed"] = SystemRandom().getrandbits(32) if knobs["seed"] is None else knobs["seed"]
    try:
        keys = ApiKeys(api_keys)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--api-key") from None
    # What isn't said is as the settings have it.
    given = {name: value for name, value in knobs.items() if value is not None}
    sellfern = opened(keys, SimulatorSettings(**given), host, port)
    known = EndpointsFile(endpoints_file, os.environ).load() if endpoints_file else {}
    places = {f"{ingress.rstrip('/')}/webhooks/{name}": each for name, each in known.items()}
    uvloop.run(_run(sellfern, places, seconds))


def _configure_logs() -> None:
    reader = Reader(os.environ)
    levels: tuple[LogLevel, ...] = ("debug", "info", "warning", "error", "critical")
    formats: tuple[LogFormat, ...] = ("console", "json")
    logs.configure(
        level=reader.choice("LOG_LEVEL", levels, "info"),
        # The programs' own settings: who has set them for a log wants this one like it.
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


async def _run(
    opening: AbstractAsyncContextManager[Sellfern],
    known: Mapping[str, Endpoint],
    seconds: float | None,
) -> None:
    """Be there until SIGTERM or SIGINT, until ``seconds`` are over, or until the last event.

    After the last event its deliveries come to their end first.

    Raises:
        SettingsError: host and port can't be listened on, or an endpoint can't be registered.
    """
    # The signal before anything is open: one that comes meanwhile ends it in the same way.
    async with stop_signal() as stop, opening as sellfern:
        for url, endpoint in known.items():
            _register(sellfern, endpoint, url)
        # Only now may somebody begin: what is asked for before would find no endpoint.
        _log.info(
            "simulator_listening",
            url=sellfern.url,
            api_keys=[f"{key.masked}:{key.organization}" for key in sellfern.api_keys.all],
            seed=sellfern.settings.seed,
        )
        await _first(stop.wait(), _last_event(sellfern), seconds=seconds)
    counts = dict(sellfern.deliveries.counts)
    _log.info("simulator_stopped", events=sellfern.events, deliveries=counts)


def _register(sellfern: Sellfern, endpoint: Endpoint, url: str) -> None:
    """Register an endpoint of somebody's file for all events, so that nobody copies its secret.

    Raises:
        SettingsError: it is of an organization that has no API key, or has more endpoints than it
            may.
    """
    organization, secrets = endpoint.organization_id, endpoint.active(time.time())
    if organization not in sellfern.api_keys.organizations:
        expected = "endpoints of organizations that have an --api-key"
        raise SettingsError("--endpoints-file", expected, repr(organization))
    if endpoint.scheme != SELLFERN or not secrets:  # only so can Sellfern sign
        _log.warning("endpoint_not_registered", endpoint=endpoint.id)
        return
    try:
        sellfern.endpoints.create(organization, url, EVENTS, secret=secrets[0].value.reveal())
    except Refused as exc:
        raise SettingsError("--endpoints-file", str(exc), organization) from exc


async def _first(*ends: Coroutine[Any, Any, object], seconds: float | None) -> None:
    """Wait for one of them, or so long."""
    tasks = [asyncio.ensure_future(each) for each in ends]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _last_event(sellfern: Sellfern) -> None:
    await sellfern.complete.wait()
    # Whoever asked for so many events wants to see them delivered.
    await sellfern.settled()


if __name__ == "__main__":
    main()
