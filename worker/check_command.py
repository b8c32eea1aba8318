"""``python -m worker check``."""

import asyncio
import os

import click

from shared import display
from shared.findings import show
from shared.in_force import print_settings, settings_option
from worker.check import findings
from worker.console.settings import ConsoleSettings


@click.command()
@settings_option
@click.option("--json", "as_json", is_flag=True, help="For machines: JSON lines.")
def check(*, settings: bool, as_json: bool) -> None:
    """Look at all that a start needs, and at what may not be meant so. Exit code 2 for errors."""
    if settings:
        print_settings(ConsoleSettings.from_reader, as_json=as_json)  # and the worker's
        return
    found = asyncio.run(findings(os.environ))
    for finding in found:
        show(finding, as_json=as_json)
    if any(finding.level == "error" for finding in found):
        raise SystemExit(display.USAGE_ERROR)
