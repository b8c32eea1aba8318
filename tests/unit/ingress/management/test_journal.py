"""Facts about the journal of requests whose outcome isn't known."""

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ingress.management.journal import KEY_SECONDS, Journal, JournalError, OutcomeTooOld

HOLD = """
import sys, time
from pathlib import Path
from ingress.management.journal import Journal

with Journal.locked(Path(sys.argv[1])) as journal:
    journal.begin("org_a", "POST /webhooks", b"one", "one")
    print("locked", flush=True)
    time.sleep(60)
"""


class Clock:
    """A time that a test sets."""

    now = 1_795_000_000.0

    def __call__(self) -> float:
        return self.now


class Work(msgspec.Struct):
    step: str


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.json"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal.locked(path) as locked:
        yield locked


def test_a_request_keeps_its_key_until_its_outcome_is_known(path: Path) -> None:
    with Journal.locked(path) as first:
        entry, begun = first.begin("org_a", "POST /webhooks", b"one", "one")
        assert not begun
        assert first.has_begun("org_a", "POST /webhooks", b"one")
    with Journal.locked(path) as second:
        again, begun = second.begin("org_a", "POST /webhooks", b"one", "one")
        assert begun
        assert again == entry
        second.settle(again)
        assert not second.has_begun("org_a", "POST /webhooks", b"one")
    with Journal.locked(path) as third:
        fresh, begun = third.begin("org_a", "POST /webhooks", b"one", "one")
        assert not begun
        assert fresh.key != entry.key


@pytest.mark.parametrize(
    ("organization", "operation", "request_"),
    [
        ("org_b", "POST /webhooks", b"one"),
        ("org_a", "DELETE /webhooks/{id}", b"one"),
        ("org_a", "POST /webhooks", b"two"),
    ],
)
def test_a_key_is_never_another_requests(
    journal: Journal, organization: str, operation: str, request_: bytes
) -> None:
    entry, _ = journal.begin("org_a", "POST /webhooks", b"one", "one")
    other, begun = journal.begin(organization, operation, request_, "other")
    assert not begun
    assert other.key != entry.key
    assert len(journal.pending) == 2


def test_an_entry_is_on_disk_before_begin_returns_for_its_owner_alone(
    path: Path, journal: Journal
) -> None:
    entry, _ = journal.begin("org_a", "POST /webhooks", b"one", "one")
    assert json.loads(path.read_bytes())["pending"][0]["key"] == entry.key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_key_is_not_used_beyond_its_day(path: Path) -> None:
    clock = Clock()
    with Journal.locked(path, clock=clock) as journal:
        entry, _ = journal.begin("org_a", "POST /webhooks", b"one", "POST it")
        clock.now += KEY_SECONDS
        assert journal.begin("org_a", "POST /webhooks", b"one", "POST it") == (entry, True)
        clock.now += 1
        with pytest.raises(OutcomeTooOld) as caught:
            journal.begin("org_a", "POST /webhooks", b"one", "POST it")
    message = str(caught.value)
    assert message.startswith("POST it: sent about 24 hours ago and never answered")
    assert "Look at Sellfern" in message
    assert message.endswith(f"endpoints pending --forget {entry.key}")


def test_a_clock_that_went_back_leaves_the_age_unknown(path: Path) -> None:
    clock = Clock()
    with Journal.locked(path, clock=clock) as journal:
        journal.begin("org_a", "POST /webhooks", b"one", "one")
        clock.now -= 601
        with pytest.raises(OutcomeTooOld):
            journal.begin("org_a", "POST /webhooks", b"one", "one")


def test_a_note_and_the_end_of_a_request_are_written_in_one_step(path: Path) -> None:
    with Journal.locked(path) as journal:
        entry, _ = journal.begin("org_a", "POST /webhooks", b"one", "one")
        journal.note("rotation/acme", Work("registered"))
        assert Journal(path).noted("rotation/acme", Work) is None
        journal.settle(entry)
    found = Journal(path)
    assert found.noted("rotation/acme", Work) == Work("registered")
    assert found.pending == ()
    with Journal.locked(path) as journal:
        journal.note("rotation/acme", None)
        journal.note("never/there", None)
        journal.save()
    assert Journal(path).noted("rotation/acme", Work) is None


def test_a_note_of_another_form_is_refused(journal: Journal) -> None:
    journal.note("rotation/acme", ["x"])
    with pytest.raises(JournalError, match="rotation/acme"):
        journal.noted("rotation/acme", Work)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 2}', b'{"pending": [{}]}', b'{"x": 1}', b"\xff", b"[" * 10**6],
)
def test_a_corrupt_journal_is_refused_and_left_as_it_is(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(JournalError, match="look at Sellfern what there is"), Journal.locked(path):
        pass
    assert path.read_bytes() == content


def test_a_journal_that_can_t_be_used_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(JournalError, match="expected a journal to read"), Journal.locked(path):
        pass
    with pytest.raises(JournalError, match="expected a journal to read"):
        Journal(path)


def test_a_journal_that_can_t_be_written_is_refused(path: Path, journal: Journal) -> None:
    path.mkdir()
    with pytest.raises(JournalError, match="expected a journal to read and write"):
        journal.begin("org_a", "POST /webhooks", b"one", "one")


def test_two_processes_take_turns_and_a_killed_one_gives_its_turn_up(path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        expected = f"process {holder.pid} has it"
        with pytest.raises(JournalError, match=expected), Journal.locked(path, patience=0.1):
            pass
        holder.send_signal(signal.SIGKILL)
        with Journal.locked(path) as journal:
            assert journal.has_begun("org_a", "POST /webhooks", b"one")
