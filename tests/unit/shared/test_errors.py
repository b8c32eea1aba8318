"""The tree of errors, and what each of them says."""

import importlib
import inspect
import pkgutil

import pytest

import ingress
import shared
import worker
from shared import errors
from shared.errors import SellfernError, SettingsError, SignatureError, Unavailable


def _modules() -> list[str]:
    return [
        module.name
        for package in (shared, ingress, worker)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        if not module.name.endswith("__main__")
    ]


@pytest.mark.parametrize("name", _modules())
def test_every_exception_that_is_defined_here_belongs_to_the_one_tree(name: str) -> None:
    module = importlib.import_module(name)
    for _, error in inspect.getmembers(module, inspect.isclass):
        # What ends the process is no error.
        if error.__module__ == name and issubclass(error, Exception):
            assert issubclass(error, SellfernError), error


def test_the_tree_has_one_root() -> None:
    assert SellfernError.__bases__ == (Exception,)
    roots = [
        error
        for _, error in inspect.getmembers(errors, inspect.isclass)
        if error.__module__ == errors.__name__
        and issubclass(error, BaseException)
        and not issubclass(error, SellfernError)
    ]
    assert roots == []


def test_a_wrong_setting_says_what_was_expected_and_what_was_got() -> None:
    error = SettingsError("PORT", "a port", "'x'")
    assert str(error) == "PORT: expected a port, got 'x'"
    assert (error.setting, error.expected, error.got, error.line) == ("PORT", "a port", "'x'", None)


def test_a_wrong_line_of_a_file_is_numbered() -> None:
    error = SettingsError("FILE", "a number", "nothing", line=7)
    assert str(error) == "FILE line 7: expected a number, got nothing"
    assert error.line == 7


def test_an_unavailable_names_its_cause_twice_for_people_and_for_programs() -> None:
    error = Unavailable("redis_timeout", "Redis did not answer in time")
    assert (error.code, error.message) == ("redis_timeout", "Redis did not answer in time")
    assert str(error) == "redis_timeout: Redis did not answer in time"


def test_a_signature_error_has_a_code_and_a_sentence() -> None:
    error = SignatureError("signature_missing", "the header is missing")
    assert (error.code, str(error)) == ("signature_missing", "the header is missing")
