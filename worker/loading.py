"""Finds the handlers that ``WORKER_HANDLERS`` names."""

import importlib
import os
import sys
from pathlib import Path
from traceback import FrameSummary, extract_tb

from shared.errors import HandlerError, SettingsError, SettingsErrors
from shared.program.stopping import Stopped
from shared.shadowing import hidden
from worker.masking import Masks
from worker.outcomes import text_of
from worker.registry import Handlers, gathered
from worker.tracebacks import traceback_of

_SETTING = "WORKER_HANDLERS"
_OURS = f"{Path(__file__).parent}/"
_STANDARD_LIBRARY = str(Path(os.__file__).parent)


def load_handlers(path: str) -> Handlers:
    """Import the registry.

    Args:
        path: ``package.module:name``; looked for in the current directory, too.

    Raises:
        SettingsError: the module can't be imported, it has no such name, or that is no registry.
    """
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # `python -m` has it there; a program that was installed has not.
        sys.path.insert(0, here)
    found = _imported(module_name, path)
    for part in attribute.split("."):
        if not hasattr(found, part):
            got = f"no {part!r} in it{_hidden(module_name)}"
            raise SettingsError(_SETTING, f"a registry in {path!r}", got)
        found = getattr(found, part)
    if not isinstance(found, Handlers):
        raise SettingsError(
            _SETTING, "a worker.Handlers object", f"{type(found).__name__} at {path!r}"
        )
    if not len(found):
        raise SettingsError(_SETTING, "at least one handler", f"an empty registry at {path!r}")
    if problems := list(found.without_resources()):
        raise _all(problems, module_name)
    return found


def _imported(module_name: str, path: str) -> object:
    """The module that a path names, where nothing is wrong with it nor with its handlers."""
    problems: list[HandlerError] = []
    try:
        with gathered(problems):
            found = importlib.import_module(module_name)
    except HandlerError as exc:  # the rest of the module is not known
        raise _all([*problems, exc], module_name) from exc
    except Stopped:
        raise
    except (Exception, SystemExit) as exc:  # a module of the user's may fail in any way
        name = getattr(exc, "name", None) or module_name  # of what could not be imported
        got = f"{text_of(exc)}{_place(exc)}{_hidden(name)}"
        raise _refused(f"a module to import in {path!r}", got, exc) from exc
    if problems:
        raise _all(problems, module_name)
    return found


def _all(problems: list[HandlerError], module: str) -> SettingsErrors:
    """Each thing that is wrong with handlers, rather than the first."""
    return SettingsErrors([_refused(f"handlers in {module}", str(e), e) for e in problems])


def _refused(expected: str, got: str, error: BaseException) -> SettingsError:
    hide = Masks().own.hide
    # Where no line of the user's has run, there is nothing to show but the error once more.
    detail = traceback_of(error, hide) if _places(error) else ""
    return SettingsError(_SETTING, expected, hide(got), detail=detail)


def _places(error: BaseException) -> list[FrameSummary]:
    """The lines of the user's own modules that ran, the last one last."""
    return [each for each in extract_tb(error.__traceback__) if _is_users(each.filename)]


def _place(error: BaseException) -> str:
    """The last line that ran of the user's own modules; what those call is seldom to be mended."""
    places = _places(error)
    return f" ({places[-1].filename}, line {places[-1].lineno})" if places else ""


def _is_users(file: str) -> bool:
    is_pythons = file.startswith(("<frozen ", _STANDARD_LIBRARY)) or "site-packages" in file
    is_ours = file.startswith(_OURS) and not file.startswith(f"{_OURS}handlers/")
    return not is_ours and not is_pythons


def _hidden(name: str) -> str:
    """A hint where a module of the user's wears a name of ours."""
    place = hidden(name, Path.cwd())
    return f"; this project's package of that name hides {place}: rename it" if place else ""
