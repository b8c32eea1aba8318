"""Facts about the worker's settings."""

import pytest

from shared.errors import SettingsError
from worker.settings import WorkerSettings


def test_the_defaults_fit_each_other() -> None:
    settings = WorkerSettings.from_mapping({})
    assert settings.handlers == "worker.handlers:handlers"
    assert settings.concurrency == 100
    assert settings.organization_concurrency is None
    assert settings.lease == 30
    assert settings.policy.max_attempts == 12
    assert settings.policy.backoff.bound(1) == 1
    assert settings.policy.backoff.bound(100) == 3600
    assert settings.policy.limits.max_event_age == 6 * 86_400
    assert settings.policy.limits.dedupe_retention == 7 * 86_400


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"MAX_EVENT_AGE": "7d"},
            (
                "MAX_EVENT_AGE: expected less than DEDUPE_RETENTION minus CLOCK_SKEW (7d - 5m), "
                "so that a late redelivery still finds its mark, got 7d"
            ),
        ),
        (
            {"BACKOFF_BASE": "2h", "BACKOFF_CAP": "1h"},
            "BACKOFF_BASE: expected at most BACKOFF_CAP (1h), got 2h",
        ),
        (
            {"MAX_ATTEMPTS": "40"},
            (
                "MAX_ATTEMPTS: expected attempts (with HANDLER_TIMEOUT each, and the delays up to "
                "BACKOFF_CAP between them) that take at most DEDUPE_RETENTION minus CLOCK_SKEW "
                "minus MAX_EVENT_AGE (1435m) together, got 40, which may take 103695s"
            ),
        ),
        ({"WORKER_HANDLERS": "no"}, "WORKER_HANDLERS: expected package.module:name, got 'no'"),
        ({"MAX_ATTEMPTS": "0"}, "MAX_ATTEMPTS: expected a whole number from 1 to 1000, got '0'"),
        ({"WORKER_ADMIN_PORT": "x"}, "WORKER_ADMIN_PORT: expected a port from 0 to 65535, got 'x'"),
    ],
)
def test_a_setting_that_cannot_be_says_what_was_expected(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        WorkerSettings.from_mapping(environ)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "environ",
    [
        {"BACKOFF_CAP": "x", "BACKOFF_BASE": "2h"},
        {"DEDUPE_RETENTION": "x", "MAX_EVENT_AGE": "8d"},
        {"HANDLER_TIMEOUT": "x", "MAX_ATTEMPTS": "900"},
    ],
)
def test_what_is_wrong_is_not_held_against_what_is_right(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        WorkerSettings.from_mapping(environ)
    assert [error.got for error in caught.value.errors] == ["'x'"]


def test_an_organizations_concurrency_can_be_set_for_all() -> None:
    settings = WorkerSettings.from_mapping({"ORGANIZATION_CONCURRENCY": "1"})
    assert settings.organization_concurrency == 1
