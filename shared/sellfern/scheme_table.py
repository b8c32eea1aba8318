"""A signature scheme that a table of the endpoints file describes."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from shared.sellfern.scheme import Scheme
from shared.settings.durations import parse_duration

_PLACES: Final = ("{id}", "{timestamp}", "{body}")
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")


def read(table: Mapping[str, Any]) -> Scheme:
    """The scheme, each key checked by itself and against the others.

    Raises:
        ValueError: what is wrong with it: the key, what was expected, what was got.
    """
    for key in table:
        if key not in _READERS:
            raise ValueError(f"{key!r}: expected one of {', '.join(_READERS)}")
    if "header" not in table:
        raise ValueError("no 'header', which every scheme needs")
    fields = {key: _READERS[key](key, value) for key, value in table.items()}
    # A sender's documents rarely say which case its hex is in.
    either_case = fields.get("encoding", "hex") == "hex"
    return _consistent(Scheme("described", either_case=either_case, **fields))


def _consistent(scheme: Scheme) -> Scheme:
    """Check what one key says against the others."""
    with_time = "{timestamp}" in scheme.signed
    if "{body}" not in scheme.signed:
        raise ValueError(f"'signed': expected {{body}} in it, got {scheme.signed!r}")
    if with_time != bool(scheme.timestamp_header or scheme.timestamp_field):
        raise ValueError(
            "'signed': expected {timestamp} exactly where timestamp_header or timestamp_field "
            "says where it is"
        )
    if ("{id}" in scheme.signed) != bool(scheme.id_header):
        raise ValueError("'signed': expected {id} exactly where id_header says where it is")
    if with_time != (scheme.tolerance is not None):
        raise ValueError("'tolerance': expected exactly where {timestamp} is signed")
    if scheme.timestamp_format != "seconds" and not with_time:
        raise ValueError("'timestamp_format': expected only where {timestamp} is signed")
    if scheme.timestamp_field and not scheme.separator:
        raise ValueError("'separator': expected one between the fields, such as ','")
    return scheme


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > 64 or not value.isprintable():  # noqa: PLR2004
        raise ValueError(f"{key!r}: expected a short text, got {value!r:.40}")
    return value


def _header_name(key: str, value: object) -> str:
    if not isinstance(value, str) or not _HEADER_NAME.fullmatch(value):
        raise ValueError(f"{key!r}: expected the name of a header, got {value!r:.40}")
    return value


def _one_of(*options: str) -> Callable[[str, object], str]:
    def read(key: str, value: object) -> str:
        if value not in options:
            raise ValueError(f"{key!r}: expected one of {', '.join(options)}, got {value!r:.40}")
        return str(value)

    return read


def _template(key: str, value: object) -> str:
    text = _text(key, value)
    rest = text
    for place in _PLACES:
        rest = rest.replace(place, "", 1)
    if "{" in rest or "}" in rest:
        raise ValueError(f"{key!r}: expected {', '.join(_PLACES)} once each, got {value!r:.40}")
    return text


def _seconds(key: str, value: object) -> float:
    # A bare number is seconds here as in every setting, though TOML has a type for it.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        return parse_duration(_text(key, str(value) if is_number else value))
    except ValueError as exc:
        raise ValueError(f"{key!r}: expected a duration such as '5m', got {value!r:.40}") from exc


_READERS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "header": _header_name,
    "prefix": _text,
    "encoding": _one_of("hex", "base64"),
    "algorithm": _one_of("sha256", "sha512"),
    "signed": _template,
    "separator": _text,
    "id_header": _header_name,
    "timestamp_header": _header_name,
    "timestamp_field": _text,
    "timestamp_format": _one_of("seconds", "milliseconds", "rfc3339"),
    "tolerance": _seconds,
    "secret_encoding": _one_of("raw", "base64", "hex"),
    "secret_prefix": _text,
}
