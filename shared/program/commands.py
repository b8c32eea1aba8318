"""What the programs' commands are made of: a group that imports each when asked, common options."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from shared import display
from shared.errors import SettingsError
from shared.program.env_file import offer_env_file

json_option = click.option("--json", "as_json", is_flag=True, help="For machines: JSON lines.")
yes_option = click.option("--yes", is_flag=True, help="Don't ask.")
"""Of every command that asks before it changes something."""


class LazyGroup(click.Group):
    """A group of commands that stand in modules of their own.

    What is wrong with a setting ends any of them with a line for each and exit code 2.

    Args:
        lazy: where each stands, as ``package.module:name``, by its own name.
        attributes: those of `click.Group`.
    """

    def __init__(self, *, lazy: Mapping[str, str], **attributes: Any) -> None:
        super().__init__(**attributes)
        self._lazy = lazy

    def invoke(self, ctx: click.Context) -> Any:
        """Run the one that is asked for."""
        display.print_in_any_encoding()
        try:
            return super().invoke(ctx)
        except SettingsError as exc:
            display.refuse(exc)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All of them; nothing is imported for that."""
        return sorted({*super().list_commands(ctx), *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one that is asked for."""
        if cmd_name in self._lazy and cmd_name not in self.commands:
            # Only now, so that what a command needs costs no start of the program itself.
            module, _, name = self._lazy[cmd_name].partition(":")
            command: click.Command = getattr(import_module(module), name)
            # The program was offered it with all the commands that it had, without this one.
            offer_env_file(command)
            self.add_command(command, cmd_name)
        return super().get_command(ctx, cmd_name)
