"""``python -m ingress check``."""

import asyncio
import os

import click

from ingress.check import findings
from ingress.management.settings import read_all
from ingress.settings import IngressSettings
from shared.display import USAGE_ERROR
from shared.findings import show
from shared.in_force import print_settings, settings_option


@click.command()
@settings_option
@click.option("--json", "as_json", is_flag=True, help="For machines: JSON lines.")
def check(*, settings: bool, as_json: bool) -> None:
    """Look at the settings, the endpoints and the Redis. Exit code 2 when one is wrong."""
    if settings:
        print_settings(IngressSettings.from_reader, read_all, as_json=as_json)
    elif not asyncio.run(_show_findings(as_json=as_json)):
        raise SystemExit(USAGE_ERROR)


async def _show_findings(*, as_json: bool) -> bool:
    fine = True
    async for finding in findings(os.environ):
        show(finding, as_json=as_json)
        fine = fine and finding.level != "error"
    return fine
