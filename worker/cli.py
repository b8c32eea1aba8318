"""The worker's command line."""

import os
import sys
from typing import Final

import click

from shared.endpoints.file import EndpointsFile
from shared.observe import logs
from shared.program.commands import LazyGroup
from shared.program.env_file import offer_env_file
from shared.program.findings import log_warnings, shadows
from shared.program.setting_names import near_misses
from shared.program.stopping import ending_at_once
from shared.sellfern.reference_file import load_reference
from shared.settings.reader import Reader
from worker.app import run as run_worker
from worker.doubts import Parts, doubts
from worker.loading import load_handlers
from worker.settings import WorkerSettings

_COMMANDS: Final = {
    "actions": "worker.operate.actions:actions",
    "check": "worker.check:check",
    "console": "worker.operate.console.app:console",
    "events": "worker.operate.event_commands:events",
    "handlers": "worker.listing:handlers",
    "dead-letters": "worker.operate.dead_letter_commands:dead_letters",
    "partitions": "worker.operate.partitions_command:partitions",
    "pause": "worker.operate.organization_commands:pause",
    "resume": "worker.operate.organization_commands:resume",
    "running": "worker.operate.running_command:running",
    "sql": "worker.operate.sql_command:sql",
    "state": "worker.operate.organization_commands:state",
    "status": "worker.operate.status_command:status",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, invoke_without_command=True)
@click.version_option(package_name="sellfern-webhooks")
@click.pass_context
def main(context: click.Context) -> None:
    """Handle accepted Sellfern events; without a command, run a worker."""
    if context.invoked_subcommand is None:
        context.invoke(run)


@main.command()
@click.option("--burst", is_flag=True, help="Handle what can be handled now, and end.")
def run(*, burst: bool = False) -> None:
    """Run a worker until it is told to stop (SIGTERM).

    With --burst it ends by itself, with exit code 0, once it holds nothing and nothing is due:
    for cron and CI. What comes in meanwhile is handled too. Not waited for is what waits for a
    time more than a quarter of a second ahead (a retry, a hold, a slow rate, an open breaker), what
    is paused, and what is in another worker's hands, or behind that in turn. It has no admin site,
    and doesn't wait for a Redis that is away at the start (exit code 2). The line burst_ended tells
    how many events were handled, retried, dead, and how many are left.
    """
    # What is loaded may hang, and the first process of a container ends on no SIGTERM by itself.
    with ending_at_once():
        with Reader(os.environ) as reader:
            settings = WorkerSettings.from_reader(reader)
            logs.configure(level=settings.common.log_level, fmt=settings.common.log_format)
            endpoints = EndpointsFile(settings.common.endpoints_file, os.environ, verifies=False)
            reader.note(lambda: endpoints.load(is_told=True))
            reader.note(lambda: load_reference(settings.common))
            handlers = load_handlers(settings.handlers)
        parts = Parts(handlers, load_reference(settings.common), endpoints.current)
        log_warnings([*shadows(), *near_misses(os.environ), *doubts(parts)])
        try:
            code = run_worker(settings, endpoints, handlers, is_burst=burst)
        finally:
            # A thread writes the lines, and would be gone with the last ones.
            logs.flush(logs.LAST_SECONDS)
    sys.exit(code)


offer_env_file(main)
