"""What Sellfern's API Reference lists, as data."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

import msgspec

Source = Literal["guide", "v1", "legacy", "openapi"]
"""Where a fact is from: the guide on webhooks, another V1 page, a page for ``/api/v2``, or an
imported OpenAPI document, which outranks the others."""


# A mistyped key is refused: with its default in its place an event would be unavailable.
class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An event, or an operation of the management API.

    Attributes:
        name: such as ``order.updated`` or ``POST /webhooks``.
        source: the page of the highest rank that names it.
        available: whether the Reference lists it. What it doesn't list is unavailable.
        note: for people.
        path: of an operation, where it isn't the one in its name, such as
            ``/api/v2/webhooks/{id}``.
    """

    name: str
    source: Source
    available: bool
    note: str = ""
    path: str = ""


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

    def near_events(self, event_type: str) -> list[str]:
        """The listed events that may be meant by one that isn't; none where it is a known name."""
        return [] if event_type in self.events else self.available_events()

    def has_operation(self, name: str) -> bool:
        """Whether the Reference lists this operation."""
        entry = self.operations.get(name)
        return entry is not None and entry.available

    def path(self, operation: str) -> str:
        """The path of a known operation, with ``{id}`` in the place of an endpoint's id."""
        return self.operations[operation].path or operation.partition(" ")[2]

    def available_events(self) -> list[str]:
        """The events that the Reference lists."""
        return [name for name, entry in self.events.items() if entry.available]


def parse_reference(text: str) -> Reference:
    """Read reference data from TOML.

    Raises:
        ValueError: it is not; the message says where and what was expected.
    """
    try:
        tables = msgspec.convert(tomllib.loads(text), _Tables)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as exc:
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
