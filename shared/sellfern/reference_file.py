"""The file of imported reference data, which stands in for what comes with the project."""

from pathlib import Path
from typing import Final

from shared.errors import SettingsError
from shared.sellfern.reference import Reference, load_default, parse_reference
from shared.settings.config import CommonSettings

NAME: Final = "reference.toml"
"""What the file is called beside the endpoints file, where ``REFERENCE_FILE`` names no other."""

_SETTING: Final = "REFERENCE_FILE"


def reference_path(settings: CommonSettings) -> Path:
    """Where imported reference data is, or would be."""
    return settings.reference_file or settings.endpoints_file.parent / NAME


def load_reference(settings: CommonSettings) -> Reference:
    """The imported reference data, or without it what comes with the project.

    Raises:
        SettingsError: the file is named but can't be read, or it is no reference data.
    """
    path = reference_path(settings)
    if settings.reference_file is None and not path.exists():
        return load_default()
    return read_reference(path)


def read_reference(path: Path) -> Reference:
    """Read a file of reference data.

    Raises:
        SettingsError: it can't be read, or it is none.
    """
    try:
        return parse_reference(path.read_text(encoding="utf-8"))
    except OSError as exc:
        got = f"{path} ({exc.strerror})"
    except ValueError as exc:  # no UTF-8, no TOML, no reference
        got = f"{path}: {exc}"
    expected = "a file of reference data, as `python -m ingress reference import` writes it"
    raise SettingsError(_SETTING, expected, got)
