"""What Sellfern's API Reference lists, as data."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

import msgspec

Source = Literal["guide", "v1", "legacy"]
"""Where a fact is from: the guide on webhooks, another V1 page, a page for ``/api/v2``."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event, or an operation of the management API.

    Attributes:
        name: such as ``order.updated`` or ``POST /webhooks``.
        source: the page of the highest rank that names it.
        available: whether the Reference lists it. What it doesn't list is unavailable.
        note: for people.
    """

    name: str
    source: Source
    available: bool
    note: str = ""


class _Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    event: list[Entry]
    operation: list[Entry]


@dataclass(frozen=True, slots=True)
class Reference:
    """The reference data.

    Attributes:
        events: by name.
        operations: by name, ``METHOD /path``.
    """

    events: Mapping[str, Entry]
    operations: Mapping[str, Entry]

    def is_available(self, event_type: str) -> bool:
        """Whether the Reference lists this event."""
        entry = self.events.get(event_type)
        return entry is not None and entry.available


def parse_reference(text: str) -> Reference:
    """Read reference data from TOML.

    Raises:
        ValueError: it is not; the message says where and what was expected.
    """
    try:
        tables = msgspec.convert(tomllib.loads(text), _Tables)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise ValueError(f"reference data: {exc}") from exc
    return Reference(_by_name("event", tables.event), _by_name("operation", tables.operation))


@cache
def load_default() -> Reference:
    """The reference data that comes with the project."""
    return parse_reference((files(__package__) / "reference.toml").read_text(encoding="utf-8"))


def _by_name(kind: str, entries: list[Entry]) -> Mapping[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in found:
            raise ValueError(f"reference data: expected each {kind} once, got {entry.name} again")
        found[entry.name] = entry
    return MappingProxyType(found)
