"""What somebody without the secret would send."""

from dataclasses import replace

from deploy.sellfern.event import Event

PREFIX = "evt_forged_"
"""What a forged event's id starts with, so that one that was handled can be told."""


def forged(event: Event) -> Event:
    """An event that looks like another and never happened."""
    return replace(event, id=PREFIX + event.id.removeprefix("evt_"))
