"""Log lines: what they look like, and what never shows in one."""

import asyncio
import contextlib
import datetime as dt
import enum
import json
import logging
import os
import re
import select
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO, TextIOWrapper
from pathlib import PurePosixPath
from typing import Any, Never

import pytest
from arq.worker import logger as arqs_logger
from hypothesis import given
from hypothesis import strategies as st

from shared.observe import logs
from shared.observe.logs import get_logger
from shared.settings.config import LogFormat, LogLevel
from shared.settings.redis_url import RedisUrl
from shared.settings.secret import Secret
from tests.log_support import captured_log
from tests.unit.shared.test_display import ATTACK, SHOWN, dangerous

PASSWORD = "hunter2"
BODY = b'{"card":"4111-1111-1111-1111"}'


class Stream(TextIOWrapper):
    """A text stream over bytes that may say it is a terminal."""

    def __init__(self, *, terminal: bool = False) -> None:
        self.bytes = BytesIO()
        self.terminal = terminal
        super().__init__(self.bytes, encoding="utf-8")

    def isatty(self) -> bool:
        return self.terminal

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode()

    @property
    def events(self) -> list[str]:
        """The events of its lines, which are JSON."""
        return [json.loads(line)["event"] for line in self.text.splitlines()]

    @property
    def first(self) -> dict[str, Any]:
        """The first line, as a JSON object."""
        line: dict[str, Any] = json.loads(self.text.splitlines()[0])
        return line


@contextlib.contextmanager
def logging_to(
    stream: TextIOWrapper, *, fmt: LogFormat = "json", level: LogLevel = "info"
) -> Iterator[None]:
    logs.configure(level=level, fmt=fmt, stream=stream)
    try:
        yield
    finally:
        logs.configure(level="info", fmt="json")


def logged(event: Any, /, *, fmt: LogFormat = "json", **fields: Any) -> Stream:
    """Log one line."""
    stream = Stream()
    with logging_to(stream, fmt=fmt):
        get_logger().info(event, **fields)
    return stream


def shown(value: object) -> Any:
    """What a field of this value is in JSON."""
    return logged("happened", field=value).first["field"]


def test_a_line_is_json_with_its_time_level_event_and_fields_in_order() -> None:
    line = logged("happened", z=1, a="b", n=None, f=1.5, yes=True)
    assert line.text.endswith("\n")
    assert list(line.first) == ["timestamp", "level", "event", "z", "a", "n", "f", "yes"]
    values = list(line.first.values())[1:]
    assert values == ["info", "happened", 1, "b", None, 1.5, True]


def test_the_time_is_that_of_now_in_utc_to_the_millisecond() -> None:
    before = dt.datetime.now(dt.UTC)
    with captured_log() as captured:
        for _ in range(100):
            get_logger().info("happened")
    after = dt.datetime.now(dt.UTC)
    stamps = [line["timestamp"] for line in captured.lines]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", each) for each in stamps)
    times = [dt.datetime.fromisoformat(each) for each in stamps]
    millisecond = dt.timedelta(milliseconds=1)
    assert before - millisecond <= times[0] <= times[-1] <= after + millisecond


def test_a_logger_that_was_made_before_and_bound_later_bears_its_fields() -> None:
    log = get_logger(program="worker")
    with captured_log() as captured:
        log.bind(job="1").warning("happened", more=2)
    (line,) = captured.lines
    assert (line["level"], line["program"], line["job"], line["more"]) == (
        "warning",
        "worker",
        "1",
        2,
    )


def test_what_is_less_urgent_than_the_level_is_not_logged() -> None:
    stream = Stream()
    with logging_to(stream, level="warning"):
        log = get_logger()
        for name in ("debug", "info", "warning", "error", "critical"):
            getattr(log, name)(name)
    lines = [json.loads(line)["event"] for line in stream.text.splitlines()]
    assert lines == ["warning", "error", "critical"]


def test_a_field_cannot_pretend_to_be_the_time_or_the_level() -> None:
    line = logged("happened", level="critical", timestamp="never").first
    assert (line["level"], line["level_"], line["timestamp_"]) == ("info", "critical", "never")
    assert line["timestamp"] != "never"


def test_a_line_without_an_event_is_a_line() -> None:
    assert logged(None, a=1).first["event"] is None
    assert " None a=1\n" in logged(None, a=1, fmt="console").text


class Colour(enum.Enum):
    RED = "red"
    RAW = BODY


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Order:
    card: str = PASSWORD


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (BODY, "<30 bytes>"),
        (bytearray(BODY), "<30 bytes>"),
        (memoryview(BODY), "<30 bytes>"),
        ([BODY, (BODY, {"k": BODY})], ["<30 bytes>", ["<30 bytes>", {"k": "<30 bytes>"}]]),
        ({BODY: 1}, {"<30 bytes>": 1}),
        (Colour.RED, "red"),
        (Colour.RAW, "<30 bytes>"),
        (Level.LOW, 1),
        (Secret(PASSWORD), "***"),
        ({"k": [Secret(PASSWORD)]}, {"k": ["***"]}),
        ({Secret(PASSWORD): 1}, {"***": 1}),
        (RedisUrl(f"redis://:{PASSWORD}@h/0"), "redis://:***@h/0"),
        (Order(), "<Order>"),
        ([Order()], ["<Order>"]),
        (object(), "<object>"),
        (Order, "Order"),
        (PurePosixPath("/a/b"), "/a/b"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.50"), "1.50"),
        (dt.timedelta(seconds=90), "0:01:30"),
        (dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "2026-01-02T00:00:00+00:00"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.time(3, 4), "03:04:00"),
        (ValueError("what"), "ValueError: what"),
        ({1: (2, None)}, {"1": [2, None]}),
        ({3}, [3]),
        (float("nan"), None),
        (2**200, 2**200),
        ("\ud800", r"\ud800"),
        (["\ud800", {"\udfff": 2**64, "n": 1}], [r"\ud800", {r"\udfff": str(2**64), "n": 1}]),
    ],
)
def test_a_field_of_any_type_has_a_plain_form_without_bodies_or_secrets(
    value: object, expected: object
) -> None:
    assert shown(value) == expected
    text = logged("happened", field=value, fmt="console").text
    assert PASSWORD not in text
    assert "4111" not in text


def test_what_is_nested_deeply_or_in_itself_is_cut() -> None:
    loop: list[object] = []
    loop.append(loop)
    assert shown(loop) == [[[[[[[["…"]]]]]]]]
    assert "…" in logged("happened", field=loop, fmt="console").text


class Broken(PurePosixPath):
    """A value whose own code raises."""

    def __str__(self) -> Never:
        raise RuntimeError(PASSWORD)


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_field_that_cannot_be_shown_costs_the_line_but_not_the_work(fmt: LogFormat) -> None:
    text = logged("happened", field=Broken(), fmt=fmt).text
    assert "log_line_failed" in text
    assert "RuntimeError" in text
    assert "happened" in text
    assert PASSWORD not in text


def test_a_lost_line_whose_event_is_no_text_names_none() -> None:
    line = logged(BODY, field=Broken()).first
    assert (line["event"], line["lost"]) == ("log_line_failed", None)


class Unwritable(Stream):
    """A stream that can't be written to any more."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    @property
    def buffer(self) -> Any:
        return self

    def write(self, _: object) -> Never:
        raise self._error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed")])
def test_a_log_that_cannot_be_written_does_not_stop_the_work(error: Exception) -> None:
    with logging_to(Unwritable(error)):
        get_logger().info("happened")
        logging.getLogger("library").warning("happened")


def fails_with_a_local(hidden: str) -> Never:
    raise ValueError(f"{len(hidden)} characters are too many")


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_an_exception_shows_its_traceback_and_no_variables(fmt: LogFormat) -> None:
    stream = Stream()
    with logging_to(stream, fmt=fmt):
        try:
            fails_with_a_local(PASSWORD)
        except ValueError:
            get_logger().exception("failed", job="1")
    assert "fails_with_a_local" in stream.text
    assert "ValueError: 7 characters are too many" in stream.text
    assert PASSWORD not in stream.text.replace("(PASSWORD)", "")
    assert "hunter" not in stream.text


def test_an_exception_may_be_given_in_every_form() -> None:
    error = ValueError("what")
    for given_as in (error, (ValueError, error, None)):
        assert logged("x", exc_info=given_as).first["exception"] == "ValueError: what"
    for none in (True, False, None, (None, None, None)):
        assert "exception" not in logged("x", exc_info=none).first


def test_a_traceback_that_is_a_text_is_shown_as_lines_to_people_alone() -> None:
    fields: dict[str, Any] = {"error": "what", "traceback": "first\n  second\x1b"}
    assert logged("x", **fields).first["traceback"] == fields["traceback"]
    shown = logged("x", fmt="console", **fields).text
    assert shown.endswith("error=what\n  first\n    second\\x1b\n")


def test_of_a_long_traceback_the_end_is_shown() -> None:
    text = logged("x", exc_info=ValueError("a" * 20_000 + "end")).first["exception"]
    assert len(text) == 8_001
    assert text[0] == "…"
    assert text.endswith("aend")


@pytest.mark.parametrize("place", ["event", "name", "value", "nested", "exception"])
@pytest.mark.parametrize("fmt", ["json", "console"])
def test_an_attack_is_shown_as_text(fmt: LogFormat, place: str) -> None:
    fields: dict[str, Any] = {
        "event": {},
        "name": {ATTACK: 1},
        "value": {"field": ATTACK},
        "nested": {"field": {ATTACK: [ATTACK]}},
        "exception": {"exc_info": ValueError(ATTACK)},
    }
    text = logged(ATTACK if place == "event" else "happened", fmt=fmt, **fields[place]).text
    assert dangerous(text) <= {"\n"}
    assert "[bold red]x[/] :boom:" in text
    if fmt == "console" and place != "nested":
        assert SHOWN in text.replace("\n  ", r"\n")  # where an exception breaks its lines
    if fmt == "json":
        assert ATTACK.replace("\ud800", r"\ud800") in words(json.loads(text))


def words(value: object) -> str:
    """All texts in a JSON value."""
    if isinstance(value, dict):
        return words([*value.keys(), *value.values()])
    return " ".join(map(words, value)) if isinstance(value, list) else str(value)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
_NAMES = st.text(max_size=8).filter(lambda name: name not in {"event", "exc_info", "fmt"})


FAILED = "log_line_failed"
"""What is logged in place of a line that can't be."""


@given(st.text(), st.dictionaries(_NAMES, _VALUES, max_size=3))
def test_any_event_with_any_fields_is_one_safe_line(event: str, fields: dict[str, Any]) -> None:
    in_json = logged(event, **fields)
    in_console = logged(event, fmt="console", **{**fields, "exception": None})
    for stream in (in_json, in_console):
        assert dangerous(stream.text) == {"\n"}
        assert stream.text.count("\n") == 1
        # Texts of the code are among those that are drawn.
        assert FAILED not in stream.text or FAILED in repr((event, fields))
    assert len(in_json.first) == 3 + len(fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"a": 1, "b": "x.y:/z@w", "c": None}, "a=1 b=x.y:/z@w c=None"),
        ({"a": ""}, 'a=""'),
        ({"a": "two words"}, 'a="two words"'),
        ({"a": "x=y"}, 'a="x=y"'),
        ({"a": 'x" level="error'}, r'a="x\" level=\"error"'),
        ({"a": "x\\"}, r'a="x\\"'),
        ({"a": "x\n"}, r'a="x\n"'),
        ({"a": r"x\n"}, r'a="x\\n"'),
        ({"a b": 1}, '"a b"=1'),
        ({"a": ["x", 1]}, """a="['x', 1]\""""),
        ({"a": "Zürich"}, "a=Zürich"),
    ],
)
def test_a_console_value_ends_where_it_seems_to(fields: dict[str, Any], expected: str) -> None:
    line = logged("happened", fmt="console", **fields).text
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d{3} info     happened " + re.escape(expected) + "\n", line
    )


def test_the_console_shows_an_exception_below_its_line() -> None:
    text = logged("failed", fmt="console", exc_info=ValueError("one\ntwo"), a=1).text
    first, *rest = text.splitlines()
    assert first.endswith("info     failed a=1")
    assert rest == ["  ValueError: one", "  two"]


@pytest.mark.parametrize(("terminal", "colours"), [(True, True), (False, False)])
def test_only_a_terminal_gets_colours(*, terminal: bool, colours: bool) -> None:
    stream = Stream(terminal=terminal)
    with logging_to(stream, fmt="console"):
        get_logger().error(ATTACK, a=ATTACK)
    assert ("\x1b[31merror" in stream.text) is colours
    unstyled = re.sub(r"\x1b\[(?:[0-9;]*)m", "", stream.text)
    assert dangerous(unstyled) == {"\n"}


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (5, "debug"),
        (10, "debug"),
        (20, "info"),
        (25, "info"),
        (35, "warning"),
        (40, "error"),
        (50, "critical"),
        (99, "critical"),
    ],
)
def test_a_librarys_record_is_a_line_of_ours(number: int, name: str) -> None:
    stream = Stream()
    with logging_to(stream, level="debug"):
        logging.getLogger().setLevel(1)
        logging.getLogger("library").log(number, "got %s", 1)
    line = stream.first
    assert (line["level"], line["event"], line["logger"]) == (name, "got 1", "library")


def test_a_librarys_exception_is_shown() -> None:
    with captured_log() as captured:
        logging.getLogger("library").warning("failed", exc_info=ValueError("what"))
    (line,) = captured.lines
    assert line["exception"] == "ValueError: what"


class Unprintable:
    """An argument whose own code raises."""

    def __str__(self) -> Never:
        raise RuntimeError(PASSWORD)


@pytest.mark.parametrize(
    ("message", "arguments", "event"),
    [
        ("got %d", (BODY,), "got %d"),
        ("got %s %s", (BODY,), "got %s %s"),
        ("got %(a)s", ({"b": BODY},), "got %(a)s"),
        ("got %s", (Unprintable(),), "got %s"),
        (Unprintable(), (), "<Unprintable>"),
    ],
)
def test_a_librarys_record_that_cannot_be_said_shows_no_arguments_and_raises_nothing(
    message: object, arguments: tuple[object, ...], event: str
) -> None:
    record = logging.LogRecord("library", logging.WARNING, "", 0, message, arguments, None)
    with captured_log() as captured:
        logs._StandardHandler().handle(record)  # alone: pytest's own handler would raise
    (line,) = captured.lines
    assert line["event"] == event
    assert "4111" not in captured.text


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_arq_which_logs_arguments_at_info_is_held_at_warning(level: LogLevel) -> None:
    stream = Stream()
    with logging_to(stream, level=level):
        assert arqs_logger.getEffectiveLevel() == logging.WARNING
        for name in ("arq", "arq.worker", "arq.jobs", "arq.connections"):
            logging.getLogger(name).info("job: handle_event(%s)", BODY)
            logging.getLogger(name).debug("job: handle_event(%s)", BODY)
            logging.getLogger(name).warning("said")
    lines = [json.loads(line) for line in stream.text.splitlines()]
    assert [line["event"] for line in lines] == ["said"] * 4
    assert "4111" not in stream.text


def test_arq_says_no_more_than_the_whole_log() -> None:
    with logging_to(Stream(), level="error"):
        assert arqs_logger.getEffectiveLevel() == logging.ERROR


def test_there_is_no_access_log() -> None:
    stream = Stream()
    with logging_to(stream, level="debug"):
        logging.getLogger("aiohttp.access").critical("GET /")
    assert stream.text == ""


def test_who_configures_again_gets_each_line_once() -> None:
    first, second = Stream(), Stream()
    with logging_to(first), logging_to(second, fmt="console"):
        logging.getLogger("library").warning("happened")
        get_logger().info("happened")
    assert first.text == ""
    assert len(second.text.splitlines()) == 2


def test_other_handlers_of_the_standard_library_stay() -> None:
    root = logging.getLogger()
    mine = logging.NullHandler()
    root.addHandler(mine)
    try:
        with logging_to(Stream()), logging_to(Stream()):
            assert mine in root.handlers
    finally:
        root.removeHandler(mine)


def test_stderr_is_where_lines_go_by_default(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    logs.configure(level="info", fmt="json", stream=None)
    get_logger().info("happened")
    assert logs.flush(10)
    logs.configure(level="info", fmt="json")
    captured = capfdbinary.readouterr()
    assert captured.out == b""
    assert json.loads(captured.err)["event"] == "happened"


VALUES = ("org_a:1", None, "order.updated", 1, 0.25)


def said(values: tuple[Any, ...], *, fmt: LogFormat, form: bool) -> str:
    """One line without its time, as a form or as the logger writes it."""
    stream, names = Stream(), ("job", "event_id", "type", "attempt", "seconds")
    with logging_to(stream, fmt=fmt):
        if form:
            logs.FixedLine("event_handled", *names)(*values)
        else:
            fields = dict(zip(names, values, strict=True))
            get_logger().info("event_handled", **fields)
    return re.sub(r"[-\dT]*\d\d:\d\d:\d\d\.\d{3}Z?", "", stream.text)


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize("first", ["org_a:1", "\x1b[2Jü", "\ud800", 2**70])
def test_a_form_writes_what_the_logger_would(fmt: LogFormat, first: str | int) -> None:
    values = (first, *VALUES[1:])
    assert "event_handled" in said(values, fmt=fmt, form=True)
    assert said(values, fmt=fmt, form=True) == said(values, fmt=fmt, form=False)


def test_a_form_says_nothing_below_the_level() -> None:
    stream = Stream()
    with logging_to(stream, level="warning"):
        logs.FixedLine("event_handled", "job")("org_a:1")
    assert stream.text == ""


def test_a_form_bears_the_trace() -> None:
    stream = Stream()
    with logging_to(stream):
        logs.show_trace(lambda: "4bf9")
        try:
            logs.FixedLine("event_handled", "job")("org_a:1")
        finally:
            logs.show_trace(None)
    assert (stream.first["trace_id"], stream.first["job"]) == ("4bf9", "org_a:1")


async def test_a_form_hands_the_lines_of_a_turn_over_together() -> None:
    stream, form = Stream(), logs.FixedLine("event_handled", "job")
    with logging_to(stream):
        form("org_a:1")
        form("org_a:2")
        assert stream.text == ""
        await asyncio.sleep(0)
        assert stream.events == ["event_handled"] * 2


@pytest.mark.parametrize("logger", ["ours", "the library's"])
async def test_whoever_else_logs_comes_behind_the_lines_of_a_form(logger: str) -> None:
    stream = Stream()
    with logging_to(stream):
        logs.FixedLine("event_handled", "job")("org_a:1")
        if logger == "ours":
            get_logger().info("later")
        else:
            record = logging.makeLogRecord({"msg": "later", "levelno": logging.INFO})
            logs._StandardHandler().handle(record)
        assert stream.events == ["event_handled", "later"]


async def test_a_thread_that_flushes_has_the_lines_of_a_turn_written_that_does_not_end() -> None:
    reader, end = os.pipe()
    with os.fdopen(reader, "rb") as read, os.fdopen(end, "w") as written, logging_to(written):
        logs.FixedLine("event_handled", "job")("org_a:1")
        watchdog = threading.Thread(target=logs.flush, args=(10,))
        watchdog.start()
        watchdog.join()  # while this loop stands still
        assert select.select([read], [], [], 0)[0]
        assert json.loads(os.read(read.fileno(), 4096))["job"] == "org_a:1"


class Hanging:
    """An argument whose own code hangs until it is told to go on."""

    def __init__(self) -> None:
        self.reached, self.released = threading.Event(), threading.Event()

    def __str__(self) -> str:
        self.reached.set()
        self.released.wait()
        return "hung"


def test_a_thread_that_hangs_while_it_logs_keeps_no_other_from_logging() -> None:
    hanging, stream = Hanging(), Stream()
    with logging_to(stream):
        library = logging.Logger("library")  # noqa: LOG001  # without pytest's root handlers
        library.addHandler(logs._StandardHandler())
        thread = threading.Thread(target=library.warning, args=("%s", hanging))
        thread.start()
        assert hanging.reached.wait(10)
        other = threading.Thread(target=library.warning, args=("other",))
        other.start()
        other.join(10)
        said = stream.events
        hanging.released.set()
        thread.join()
    assert said == ["other"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the thread is what this is about
def test_a_forked_child_logs_though_its_parents_thread_is_not_there() -> None:
    reader, end = os.pipe()
    with os.fdopen(reader) as read, os.fdopen(end, "w") as written, logging_to(written):
        child = os.fork()
        if child == 0:
            get_logger().info("in_the_child")
            os._exit(0 if logs.flush(10) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert json.loads(read.readline())["event"] == "in_the_child"
        get_logger().info("in_the_parent")
        assert json.loads(read.readline())["event"] == "in_the_parent"
