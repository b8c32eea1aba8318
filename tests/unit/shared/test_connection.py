"""Facts about how Redis's errors read in this project's words."""

import inspect

import pytest
from redis import exceptions

from shared.connection import REDIS_ERRORS, translate
from shared.errors import Unavailable

UNUSED = (
    exceptions.ChildDeadlockedError,  # of locks after a fork
    exceptions.RedisClusterException,  # of clusters, as is the next
    exceptions.SlotNotCoveredError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exceptions.ReadOnlyError("You can't write"), "redis_readonly"),
        (exceptions.ResponseError("READONLY You can't write against a replica"), "redis_readonly"),
        (exceptions.OutOfMemoryError("command not allowed"), "redis_out_of_memory"),
        (exceptions.ResponseError("OOM command not allowed"), "redis_out_of_memory"),
        (exceptions.BusyLoadingError("loading"), "redis_loading"),
        (exceptions.AuthenticationError("invalid password"), "redis_refused_login"),
        (exceptions.NoPermissionError("no"), "redis_permission"),
        (exceptions.ResponseError("MISCONF disk"), "redis_not_persisting"),
        (exceptions.ResponseError("BUSY script"), "redis_busy"),
        (exceptions.ResponseError("MASTERDOWN link"), "redis_unreachable"),
        (exceptions.TimeoutError("Timeout reading"), "redis_timeout"),
        (TimeoutError(), "redis_timeout"),
        (exceptions.ConnectionError("refused"), "redis_unreachable"),
        (ConnectionResetError(), "redis_unreachable"),
        (exceptions.ResponseError("ERR what"), "redis_error"),
    ],
)
def test_each_failure_has_a_code(error: Exception, code: str) -> None:
    assert translate(error).code == code


def test_what_is_translated_already_stays() -> None:
    mine = Unavailable("backlog_full", "too many")
    assert translate(mine) is mine


def test_no_error_of_the_library_was_forgotten() -> None:
    for _, error in inspect.getmembers(exceptions, inspect.isclass):
        if issubclass(error, Exception) and error not in UNUSED:
            assert issubclass(error, (*REDIS_ERRORS, exceptions.RedisError)), error
