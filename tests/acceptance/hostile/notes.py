"""What handlers write down beside Redis: it has happened, whether it was committed or not."""

import json
import os
from pathlib import Path
from typing import Any, Final

from worker import Event

FOLDER: Final = "HOSTILE_FOLDER"
_path = Path(os.environ.get(FOLDER, "."), "notes.jsonl")  # known before anybody changes anything


def note(what: str, event: Event[Any], **more: object) -> None:
    """Write a line, by one write to a file that is opened for it: nobody else can close it."""
    fields = {"what": what, "id": event.id, "attempt": event.attempt, "pid": os.getpid(), **more}
    line = json.dumps(fields).encode() + b"\n"
    file = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def is_first(event: Event[Any]) -> bool:
    """Whether this is the first start of the event in any process: for what is done only once."""
    starts = [line for line in notes(_path.parent, event.id) if line["what"] == "start"]
    return len(starts) == 1


def notes(folder: Path, event_id: str | None = None) -> list[dict[str, Any]]:
    """What has been written, of one event or of all."""
    path = folder / "notes.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if event_id in (None, line["id"])]
