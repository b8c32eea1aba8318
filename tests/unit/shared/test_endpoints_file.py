"""The endpoints file is read again while a program runs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared import metrics
from shared.endpoints_file import EndpointsFile
from shared.errors import SettingsError
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
async def watched(
    path: Path, environ: dict[str, str] | None = None
) -> AsyncIterator[EndpointsFile]:
    file = EndpointsFile(path, environ or {})
    file.load()
    async with file.watching(INTERVAL):
        yield file


def secrets(file: EndpointsFile) -> list[bytes]:
    return file.current["a"].active_secrets(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(INTERVAL)


def reloads(outcome: str) -> float:
    value = metrics.REGISTRY.get_sample_value(
        "sellfern_endpoints_reloads_total", {"outcome": outcome}
    )
    return value or 0.0


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
        await until(lambda: file.refused is not None)
        await asyncio.sleep(5 * INTERVAL)
        assert secrets(file) == [b"whsec_good"]
        endpoints_file(text('"whsec_good"', extra="[[["))
        await until(lambda: "TOML" in str(file.refused))
        endpoints_file(text('"whsec_better"'))
        await until(lambda: secrets(file) == [b"whsec_better"])
        assert file.refused is None
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
        await until(lambda: file.refused is not None)
        assert secrets(file) == [b"x"]
        assert "No such file" in str(file.refused)


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
        await until(lambda: file.refused is not None)
        (tmp_path / "late").write_text("two")
        await until(lambda: secrets(file) == [b"two"])


async def test_a_program_that_verifies_nothing_needs_no_secret(
    endpoints_file: Callable[[str], Path],
) -> None:
    """A worker's: those secrets are mounted into the ingress only."""
    elsewhere = text('{ env = "NOT_HERE" }', '{ file = "not-here" }', extra="weight = ")
    file = EndpointsFile(endpoints_file(elsewhere + "2"), {}, verifies=False)
    assert file.load().organizations()["org"].weight == 2
    async with file.watching(INTERVAL):
        endpoints_file(elsewhere + "3")
        await until(lambda: file.current.organizations()["org"].weight == 3)
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
    assert file._look() is None
    endpoints_file(whole + whole.replace('"a"', '"b"'))
    assert file._look() is None
    reading = file._look()
    assert reading is not None
    assert list(reading.result) == ["a", "b"]  # type: ignore[arg-type]


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


def test_current_comes_after_load(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="load comes before"):
        _ = EndpointsFile(tmp_path, {}).current
