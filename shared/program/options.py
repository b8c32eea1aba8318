"""Options that commands of both programs have."""

import click

json_option = click.option("--json", "as_json", is_flag=True, help="For machines: JSON lines.")
yes_option = click.option("--yes", is_flag=True, help="Don't ask.")
