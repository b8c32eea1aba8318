"""The command that starts the console."""

import os

import click
import uvloop

from shared import display
from shared.errors import SettingsError
from shared.observe import logs
from shared.program.findings import log_warnings
from shared.program.setting_names import near_misses
from worker.operate.console.app import serve
from worker.operate.console.settings import ConsoleSettings


@click.command()
def console() -> None:
    """Serve a web page to see what happens and to act on it. It needs nothing but Redis.

    It listens on CONSOLE_HOST (127.0.0.1) and CONSOLE_PORT (9200). Beyond this machine it asks
    for CONSOLE_TOKEN; bodies are shown with CONSOLE_SHOW_PAYLOADS=1.
    """
    try:
        settings = ConsoleSettings.from_mapping(os.environ)
        logs.configure(level=settings.common.log_level, fmt=settings.common.log_format)
        log_warnings(near_misses(os.environ))
        uvloop.run(serve(settings))
    except SettingsError as exc:
        display.refuse(exc)
