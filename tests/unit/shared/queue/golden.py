"""Writes down what names and scripts there are: ``python -m tests.unit.shared.queue.golden``.

Whoever changes a script on purpose runs it, and commits what has changed.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import msgspec

from shared.queue import scripts
from shared.queue.keys import Names

FOLDER: Final = Path(__file__).parent / "golden"
TAGS: Final = {"single-queue.json": "", "partition-021.json": "021"}
NEED_ROOM: Final = {"enqueue", "replay"}
"""Scripts that don't run while Redis is full."""

SCRIPTS: Final = sorted(path.stem for path in Path(scripts.__file__).parent.glob("*.lua"))


def described(names: Names) -> dict[str, Any]:
    """Each name by its attribute or method, and each script's digest."""
    attributes = {name: text for name, text in vars(names).items() if isinstance(text, str)}
    job = f"{names.job_prefix}org_1:ab"
    return {
        "names": {
            **attributes,
            "payload()": names.payload(job),
            "event()": names.event("org_1", "evt_1"),
            "revivals()": names.revivals("org_1", "evt_1"),
            "state()": names.state("org_1", "orders/1"),
            "dead()": names.dead("org_1"),
            "dead_letter()": names.dead_letter(job),
            "parked()": names.parked("org_1"),
            "dead_group()": names.dead_group("org_1", "0f"),
            "dead_groups()": names.dead_groups("rejected"),
            "dead_labels()": names.dead_labels("org_1"),
            "dead_kind()": names.dead_kind("rejected:order.updated"),
        },
        "digests": {
            name: scripts.load(name, names, allow_oom=name not in NEED_ROOM).digest
            for name in SCRIPTS
        },
        "of an organization": {
            each.name: each.metadata["of"] for each in fields(names) if each.metadata
        },
    }


def main() -> None:
    """Write them all anew."""
    for file, tag in TAGS.items():
        raw = msgspec.json.encode(described(Names(tag)))
        (FOLDER / file).write_bytes(msgspec.json.format(raw, indent=2) + b"\n")


if __name__ == "__main__":
    main()
