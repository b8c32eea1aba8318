"""The endpoints file is read again while a program runs."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.endpoints import reader as endpoints_reader
from shared.endpoints.file import EndpointsFile
from shared.errors import SettingsError
from shared.files import versions as file_versions
from shared.observe import metrics
from tests.log_support import CapturedLog, captured_log

INTERVAL = 0.01


def text(*secrets: str, extra: str = "") -> str:
    written = ", ".join(secrets)
    return f'[[endpoint]]\nid = "a"\norganization_id = "org"\nsecrets = [{written}]\n{extra}'


@pytest.fixture
def log() -> Iterator[CapturedLog]:
    with captured_log() as captured:
        yield captured


@asynccontextmanager
async def watched(path: Path, limit: float = 5) -> AsyncIterator[EndpointsFile]:
    file = EndpointsFile(path, {}, limit=limit)
    file.load()
    async with file.watching(INTERVAL):
        yield file


def secrets(file: EndpointsFile) -> list[bytes]:
    return file.current["a"].active_secrets(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(INTERVAL)


def refused(file: EndpointsFile) -> str | None:
    """What is wrong with a file as it is now, while older endpoints hold."""
    return next((note.message for note in file.notes if note.code == "endpoints_refused"), None)


def sample(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


def reloads(outcome: str) -> float:
    return sample("sellfern_endpoints_reloads_total", outcome=outcome)


def missing(cause: str) -> float:
    return sample("sellfern_secrets_missing", cause=cause)


async def test_a_valid_change_is_applied(
    endpoints_file: Callable[[str], Path], log: CapturedLog
) -> None:
    before = reloads("applied")
    async with watched(endpoints_file(text('"old"', '"new"'))) as file:
        endpoints_file(text('"new"'))
        await until(lambda: secrets(file) == [b"new"])
    assert reloads("applied") == before + 1
    assert log.events == ["endpoints_reloaded"]


async def test_an_invalid_change_keeps_what_was_and_is_logged_once(
    endpoints_file: Callable[[str], Path], log: CapturedLog
) -> None:
    before = reloads("refused")
    async with watched(endpoints_file(text('"whsec_good"'))) as file:
        endpoints_file(text('"whsec_other"', extra="wieght = 1"))
        await until(lambda: refused(file) is not None)
        await asyncio.sleep(5 * INTERVAL)
        assert secrets(file) == [b"whsec_good"]
        endpoints_file(text('"whsec_good"', extra="[[["))
        await until(lambda: "TOML" in str(refused(file)))
        endpoints_file(text('"whsec_better"'))
        await until(lambda: secrets(file) == [b"whsec_better"])
        assert refused(file) is None
    assert log.events == ["endpoints_refused", "endpoints_refused", "endpoints_reloaded"]
    assert "line 5" in log.lines[0]["error"]
    assert "whsec_" not in log.text
    assert reloads("refused") == before + 2


async def test_a_file_that_is_gone_keeps_what_was(
    endpoints_file: Callable[[str], Path], log: CapturedLog
) -> None:
    path = endpoints_file(text('"x"'))
    async with watched(path) as file:
        path.unlink()
        await until(lambda: refused(file) is not None)
        assert secrets(file) == [b"x"]
        assert "No such file" in str(refused(file))


async def test_a_secret_file_is_watched_as_well(
    endpoints_file: Callable[[str], Path], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("one\n")
    async with watched(endpoints_file(text('{ file = "secret" }'))) as file:
        assert secrets(file) == [b"one"]
        secret.write_text("two\n")
        await until(lambda: secrets(file) == [b"two"])


async def test_a_secret_file_that_comes_later_is_seen(
    endpoints_file: Callable[[str], Path], tmp_path: Path
) -> None:
    async with watched(endpoints_file(text('"one"'))) as file:
        endpoints_file(text('{ file = "late" }'))
        await until(lambda: bool(file.current.missing))
        assert secrets(file) == []  # the other one was removed, so it is revoked
        (tmp_path / "late").write_text("two")
        await until(lambda: secrets(file) == [b"two"])


async def test_a_secret_file_that_is_gone_concerns_its_endpoint_only(
    endpoints_file: Callable[[str], Path], tmp_path: Path, log: CapturedLog
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"whsec_{name}")
    first = text('{ file = "one" }')
    second = text('{ file = "two" }').replace('"a"', '"b"')
    async with watched(endpoints_file(first + second)) as file:
        (tmp_path / "one").unlink()
        (tmp_path / "two").write_text("whsec_three")
        await until(lambda: file.current["b"].active_secrets(0) == [b"whsec_three"])
        await until(lambda: bool(file.current.missing))
        assert secrets(file) == [b"whsec_one"]
        assert missing("unreadable") == 1
        (note,) = file.notes
        assert note.code == "secret_missing"
        assert "endpoint a: ENDPOINTS_FILE" in note.message
        (tmp_path / "one").write_text("whsec_four")
        await until(lambda: secrets(file) == [b"whsec_four"])
        assert (file.notes, missing("unreadable")) == ([], 0)
    (line,) = [line for line in log.lines if line["event"] == "secret_missing"]
    assert (line["whose"], line["cause"]) == ("endpoint a", "unreadable")
    assert "line 4" in line["error"]
    assert line["kept_until"] is not None


async def test_a_secret_file_that_hangs_holds_up_neither_the_others_nor_the_loop(
    endpoints_file: Callable[[str], Path], tmp_path: Path, log: CapturedLog
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"whsec_{name}")
    first = text('{ file = "one" }')
    second = text('{ file = "two" }').replace('"a"', '"b"')
    path = endpoints_file(first + second)
    async with watched(path, limit=0.1) as file:
        (tmp_path / "one").unlink()
        os.mkfifo(tmp_path / "one")
        await until(lambda: missing("hangs") == 1)
        (tmp_path / "two").write_text("whsec_three")
        await until(lambda: file.current["b"].active_secrets(0) == [b"whsec_three"])
        assert secrets(file) == [b"whsec_one"]
        assert "file_hangs" in [note.code for note in file.notes]
        assert sample("sellfern_files_hanging") == 1
        with (tmp_path / "one").open("w") as mount:
            mount.write("whsec_one")
        await until(lambda: "file_answers" in log.events)
    (line,) = [line for line in log.lines if line["event"] == "file_hangs"]
    assert (line["path"], line["seconds"]) == (str(tmp_path / "one"), 0.1)


async def test_an_endpoints_file_that_hangs_keeps_what_was(
    endpoints_file: Callable[[str], Path], log: CapturedLog
) -> None:
    path = endpoints_file(text('"x"'))
    async with watched(path, limit=0.1) as file:
        path.unlink()
        os.mkfifo(path)
        await until(lambda: refused(file) is not None)
        assert "no answer from the file system" in str(refused(file))
        assert secrets(file) == [b"x"]
        path.unlink()
        endpoints_file(text('"y"'))
        await until(lambda: secrets(file) == [b"y"])
    assert log.events.count("file_hangs") == 1


async def test_a_touched_file_is_no_change(
    endpoints_file: Callable[[str], Path], log: CapturedLog
) -> None:
    path = endpoints_file(text('"x"'))
    os.utime(path, (1, 1))
    file = EndpointsFile(path, {})
    file.load()
    os.utime(path, (2, 2))
    looks = [file._look() for _ in range(4)]
    assert [look.reading for look in looks] == [None] * 4


def test_a_file_that_stays_is_not_read_again(
    endpoints_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = EndpointsFile(path := endpoints_file(text('"x"')), {})
    os.utime(path, (1, 1))
    monkeypatch.setattr(file_versions, "CERTAIN_AFTER", -(10**18))  # its ctime is of now
    file.load()
    read: list[Path] = []
    monkeypatch.setattr(file_versions, "content_of", read.append)
    assert [file._look().reading for _ in range(3)] == [None] * 3
    assert read == []


async def test_a_change_that_leaves_no_trace_in_the_stamp_is_seen_while_it_is_young(
    endpoints_file: Callable[[str], Path],
) -> None:
    """Two writes within one tick of the file system's clock."""
    path = endpoints_file(text('"x"'))
    later = time.time() + 60
    os.utime(path, (later, later))
    async with watched(path) as file:
        path.write_text(text('"y"'))
        os.utime(path, (later, later))
        await until(lambda: secrets(file) == [b"y"])


def test_nothing_that_could_be_verified_is_no_start_unless_it_may_come_by_itself(
    endpoints_file: Callable[[str], Path], tmp_path: Path
) -> None:
    path = endpoints_file(text('{ file = "secret" }'))
    assert EndpointsFile(path, {}).load()["a"].secrets == ()
    (tmp_path / "secret").write_text("${SECRET}")
    with pytest.raises(SettingsError, match="a template that nobody has filled in"):
        EndpointsFile(path, {}).load()
    endpoints_file(text('{ file = "secret" }') + text('"x"').replace('"a"', '"b"'))
    endpoints = EndpointsFile(path, {}).load()
    assert (endpoints["a"].secrets, len(endpoints["b"].secrets)) == ((), 1)


async def test_a_program_that_verifies_nothing_needs_no_secret(
    endpoints_file: Callable[[str], Path],
) -> None:
    """A worker's: those secrets are mounted into the ingress only."""
    elsewhere = text('{ env = "NOT_HERE" }', '{ file = "not-here" }', extra="weight = ")
    file = EndpointsFile(endpoints_file(elsewhere + "2"), {}, verifies=False)
    assert file.load().organizations["org"].weight == 2
    async with file.watching(INTERVAL):
        endpoints_file(elsewhere + "3")
        await until(lambda: file.current.organizations["org"].weight == 3)
    assert secrets(file) == []


async def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path) -> None:
    """Kubernetes swaps a folder behind a link; size and times of the file may stay the same."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "endpoints.toml").write_text(text(f'"{name}"'))
    link = tmp_path / "data"
    link.symlink_to("one")
    async with watched(link / "endpoints.toml") as file:
        other = tmp_path / "data_tmp"
        other.symlink_to("two")
        other.rename(link)
        await until(lambda: secrets(file) == [b"two"])


async def test_a_change_counts_once_two_looks_have_seen_it(
    endpoints_file: Callable[[str], Path],
) -> None:
    """A file half written may be valid by chance, with endpoints missing at its end."""
    path = endpoints_file(text('"x"'))
    file = EndpointsFile(path, {})
    file.load()
    whole = text('"y"')
    endpoints_file(whole)
    assert file._look().reading is None
    endpoints_file(whole + whole.replace('"a"', '"b"'))
    assert file._look().reading is None
    reading = file._look().reading
    assert reading is not None
    assert list(reading.endpoints or ()) == ["a", "b"]


async def test_a_watch_survives_what_it_didn_t_expect(
    endpoints_file: Callable[[str], Path],
    log: CapturedLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with watched(endpoints_file(text('"x"'))) as file:
        with monkeypatch.context() as patch:
            patch.setattr(file, "_look", lambda: 1 / 0)
            await until(lambda: bool(log.events))
        endpoints_file(text('"y"'))
        await until(lambda: secrets(file) == [b"y"])
    assert log.events[0] == "endpoints_watch_failed"


def test_a_file_that_can_t_be_read_at_start_is_a_settings_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        EndpointsFile(tmp_path / "nothing.toml", {}).load()
    assert str(caught.value) == (
        f"ENDPOINTS_FILE: expected a readable file, got {tmp_path / 'nothing.toml'} "
        "(No such file or directory)"
    )


def test_a_file_that_is_no_text_is_a_settings_error(tmp_path: Path) -> None:
    (tmp_path / "endpoints.toml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        EndpointsFile(tmp_path / "endpoints.toml", {}).load()


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xef\xbb\xbfwhsec_x\r\n")
    (tmp_path / "endpoints.toml").write_bytes(
        b"\xef\xbb\xbf" + text('{ file = "secret" }').encode()
    )
    file = EndpointsFile(tmp_path / "endpoints.toml", {})
    file.load()
    assert secrets(file) == [b"whsec_x"]


def test_utf_16_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "endpoints.toml").write_text(text('"x"'), encoding="utf-16")
    with pytest.raises(SettingsError, match=r"\(UTF-16, not UTF-8\)"):
        EndpointsFile(tmp_path / "endpoints.toml", {}).load()


@pytest.mark.parametrize(("is_work", "pause"), [(True, 2.0), (False, 0.5)])
def test_a_look_puts_the_next_one_off_by_its_work_and_not_by_what_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_work: bool, pause: float
) -> None:
    (tmp_path / "endpoints.toml").write_text(text('"x"'))
    file = EndpointsFile(tmp_path / "endpoints.toml", {})
    file.load()

    def slowly(path: Path) -> list[Path]:
        end = time.thread_time() + 0.1
        while is_work and time.thread_time() < end:
            pass
        time.sleep(0 if is_work else 0.1)
        return [path]

    monkeypatch.setattr(endpoints_reader, "toml_files", slowly)
    assert file._pause(file._look(), 0.5) == pause


def test_nothing_is_known_before_it_is_loaded(tmp_path: Path) -> None:
    assert dict(EndpointsFile(tmp_path, {}).current) == {}
