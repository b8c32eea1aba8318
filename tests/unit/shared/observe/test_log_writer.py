"""Lines are written soon and in order, and nobody who logs waits for whoever reads them."""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.observe import metrics
from shared.observe.log_writer import LogWriter

PATIENCE = 30.0
SHORT = 0.05


def gap(lines: int) -> bytes:
    return b"lost %d\n" % lines


class Pipe:
    """A pipe, and what its reader has read."""

    def __init__(self) -> None:
        self.reader, self.end = os.pipe()
        self.read = b""

    def fill(self) -> int:
        """Fill it, so that the next write blocks; how many bytes that took."""
        os.set_blocking(self.end, False)
        written = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                written += os.write(self.end, b"." * 1024)
        os.set_blocking(self.end, True)
        return written

    def read_until(self, end: bytes) -> bytes:
        """Read until something has come."""
        while end not in self.read:
            assert select.select([self.reader], [], [], PATIENCE)[0], self.read[-200:]
            self.read += os.read(self.reader, 65536)
        return self.read

    def leave(self) -> None:
        """Read no more, for ever."""
        os.close(self.reader)
        self.reader = -1

    def close(self) -> None:
        os.close(self.end)
        if self.reader >= 0:
            self.leave()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def writer(pipe: Pipe, most: int = 1_000_000) -> contextlib.closing[LogWriter]:
    return contextlib.closing(LogWriter(pipe.end, gap, most=most))


def lost() -> float:
    return metrics.LOG_LINES_LOST.labels().total


def test_lines_come_in_their_order_without_a_flush(pipe: Pipe) -> None:
    expected = [b"%d\n" % number for number in range(10_000)]
    with writer(pipe) as log:
        for line in expected:
            log.put(line)
        assert pipe.read_until(expected[-1]) == b"".join(expected)


def test_lines_of_many_threads_are_all_whole(pipe: Pipe) -> None:
    def say(number: int) -> None:
        for each in range(500):
            log.put(b"%d %d\n" % (number, each))

    with writer(pipe) as log:
        threads = [threading.Thread(target=say, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        log.put(b"end\n")
        lines = pipe.read_until(b"end\n").splitlines()[:-1]
    assert len(lines) == len(set(lines)) == 2000
    for number in range(4):
        mine = [int(line.split()[1]) for line in lines if line.startswith(b"%d " % number)]
        assert mine == list(range(500))


def test_what_a_reader_does_not_take_is_lost_counted_and_told_in_its_place(pipe: Pipe) -> None:
    before = lost()
    full = pipe.fill()
    with writer(pipe, most=40) as log:
        for number in range(10):
            log.put(b"line %d....\n" % number)  # of 12 bytes, so three of them wait
        assert lost() - before == 7
        assert not log.flush(SHORT)
        assert pipe.read_until(b"lost 7\n")[full:] == (
            b"line 0....\nline 1....\nline 2....\nlost 7\n"
        )
        log.put(b"later\n")
        assert pipe.read_until(b"later\n").endswith(b"lost 7\nlater\n")


def test_a_loss_is_told_once_for_each_time(pipe: Pipe) -> None:
    with writer(pipe, most=10) as log:
        for count in (2, 3):
            pipe.fill()
            for _ in range(1 + count):
                log.put(b"012345678\n")
            pipe.read_until(b"lost %d\n" % count)
    assert pipe.read.count(b"lost") == 2


def test_lines_that_come_together_are_counted_one_by_one(pipe: Pipe) -> None:
    with writer(pipe, most=10) as log:
        pipe.fill()
        log.put(b"012345678\n")
        log.put(b"a\nb\nc\n" * 2, 6)
        pipe.read_until(b"lost 6\n")


def test_a_line_that_is_longer_than_what_may_wait_is_written_where_nothing_waits(
    pipe: Pipe,
) -> None:
    with writer(pipe, most=10) as log:
        log.put(b"x" * 100 + b"\n")
        assert pipe.read_until(b"\n") == b"x" * 100 + b"\n"


def test_a_flush_writes_all_that_waits_and_says_so(pipe: Pipe) -> None:
    with writer(pipe) as log:
        for number in range(1000):
            log.put(b"%d\n" % number)
        assert log.flush(PATIENCE)
        assert os.read(pipe.reader, 65536).endswith(b"999\n")


def test_a_flush_waits_for_no_lock_that_another_thread_holds(pipe: Pipe) -> None:
    with writer(pipe) as log:
        log.put(b"said\n")
        with log._lock:
            flushed: list[bool] = []
            other = threading.Thread(target=lambda: flushed.append(log.flush(PATIENCE)))
            other.start()
            other.join()
        assert flushed == [True]


def test_who_is_interrupted_while_logging_may_log_again(pipe: Pipe) -> None:
    with writer(pipe) as log:
        with log._lock:  # a finalizer or a signal's handler, within `put`
            log.put(b"meanwhile\n")
        assert pipe.read_until(b"meanwhile\n")


def test_a_reader_that_left_costs_no_error_and_a_flush_no_wait(pipe: Pipe) -> None:
    pipe.leave()
    with writer(pipe) as log:
        log.put(b"said\n")
        begun = time.monotonic()
        assert not log.flush(PATIENCE)
        assert time.monotonic() - begun < PATIENCE / 2


def test_who_closes_the_descriptor_or_has_it_opened_anew_changes_nothing(
    pipe: Pipe, tmp_path: Path
) -> None:
    with writer(pipe) as log:
        fd = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
        os.dup2(fd, pipe.end)
        os.close(fd)
        log.put(b"said\n")
        assert pipe.read_until(b"said\n") == b"said\n"
    assert (tmp_path / "other").read_bytes() == b""


def test_a_descriptor_that_another_made_non_blocking_loses_nothing(pipe: Pipe) -> None:
    full = pipe.fill()
    os.set_blocking(pipe.end, False)
    with writer(pipe) as log:
        log.put(b"x" * 200_000)
        log.put(b"end\n")
        reading = threading.Thread(target=pipe.read_until, args=(b"end\n",))
        reading.start()
        assert log.flush(PATIENCE)
        reading.join()
        assert len(pipe.read) == full + 200_004


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_costs_no_error_and_its_lines_wait_for_room(pipe: Pipe) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    log = LogWriter(fd, gap)
    log.put(b"said\n")
    assert not log.flush(PATIENCE)
    os.dup2(pipe.end, log._fd)  # as if there were room again
    assert log.flush(PATIENCE)
    assert pipe.read_until(b"said\n") == b"said\n"
    log.close()
    os.close(fd)


def test_what_was_put_before_the_close_is_written_and_the_thread_ends(pipe: Pipe) -> None:
    before = set(threading.enumerate())
    with writer(pipe) as log:
        (thread,) = set(threading.enumerate()) - before
        log.put(b"last\n")
    assert pipe.read_until(b"last\n") == b"last\n"
    thread.join(PATIENCE)
    assert not thread.is_alive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(log._fd)


def test_a_closed_log_whose_reader_left_ends_all_the_same(pipe: Pipe) -> None:
    pipe.leave()
    before = set(threading.enumerate())
    with writer(pipe) as log:
        (thread,) = set(threading.enumerate()) - before
        log.put(b"last\n")
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # the thread is what this is about
def test_a_forked_child_logs_at_once_and_neither_hangs_nor_says_its_parents_lines(
    pipe: Pipe,
) -> None:
    full = pipe.fill()
    with writer(pipe) as log:
        log.put(b"parent\n")
        child = os.fork()
        if child == 0:
            log.forked()
            log.put(b"lost, since nobody reads\n")
            os._exit(0 if log.flush(PATIENCE) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert pipe.read_until(b"parent\n")[full:] == b"parent\n"
        child = os.fork()
        if child == 0:
            log.forked()
            log.put(b"child\n")
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        log.put(b"end\n")
        assert pipe.read_until(b"end\n")[full:] == b"parent\nchild\nend\n"
