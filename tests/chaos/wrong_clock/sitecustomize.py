"""Puts a whole process's clock wrong, by ``CHAOS_CLOCK_SECONDS``; Python runs it first."""

import os
import time

_OFF = float(os.environ.get("CHAOS_CLOCK_SECONDS", "0"))
_time, _time_ns = time.time, time.time_ns


def _wrong_time() -> float:
    return _time() + _OFF


def _wrong_time_ns() -> int:
    return _time_ns() + int(_OFF * 1e9)


time.time, time.time_ns = _wrong_time, _wrong_time_ns
