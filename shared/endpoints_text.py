"""The text of an endpoints file: its tables, and what becomes of them."""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.config import Secret
from shared.endpoint_place import ARRAY, Place, blaming, shown
from shared.endpoint_table import EndpointDraft, SecretEntry, read_table
from shared.endpoints import Endpoint, Endpoints, EndpointSecret, OrganizationProfile, nearest
from shared.errors import SettingsError
from shared.organization_profiles import ProfileUnion
from shared.plain_text import decoded
from shared.secret_source import ReadSecretFile, SecretFetcher, foreign_secret
from shared.toml_lines import TableLines

Placed = tuple[EndpointDraft, Place]
"""An endpoint, and where its table stands."""

FetchSecrets = Callable[[EndpointDraft, Place], tuple[EndpointSecret, ...]]
"""Gives an endpoint its secrets; raises SettingsError where it can't."""


def read_text(path: Path) -> str:
    """Read a file of UTF-8 text; the usual `ReadSecretFile`."""
    return decoded(path.read_bytes())


def parse_endpoints(
    text: str,
    *,
    path: Path,
    environ: Mapping[str, str],
    read_secret_file: ReadSecretFile = read_text,
) -> Endpoints:
    """Read the endpoints file, with all secrets.

    Args:
        text: its contents, TOML.
        path: where it is, for messages; secret files are relative to its folder.
        environ: where ``{ env = "…" }`` secrets are.
        read_secret_file: reads ``{ file = "…" }`` secrets.

    Raises:
        SettingsError: something in it is wrong. The message names file and line and holds
            no part of any secret.
    """
    secrets = AllSecrets(SecretFetcher(environ, read_secret_file))
    return joined(read_tables(text, path), secrets.of)


def read_tables(text: str, path: Path) -> list[Placed]:
    """The endpoints of a file as their tables say them, in their order.

    Args:
        text: of the file.
        path: of it, for messages.

    Raises:
        SettingsError: it isn't valid TOML, or something in a table is wrong.
    """
    placed = []
    for index, raw in enumerate(_tables(text, path)):
        place = Place(path, text, 1, index)
        placed.append((read_table(raw, place), place))
    return placed


def joined(tables: Iterable[Placed], secrets: FetchSecrets) -> Endpoints:
    """The endpoints, and what those of one organization say together.

    Args:
        tables: all of them.
        secrets: gives an endpoint its secrets.

    Raises:
        SettingsError: two contradict each other, or secrets can't be had.
    """
    union = ProfileUnion()
    drafts = []
    for draft, place in tables:
        union.add(draft, place)
        drafts.append((draft, secrets(draft, place)))
    profiles = union.profiles()
    endpoints = (
        _endpoint(draft, known, profiles[draft.organization_id]) for draft, known in drafts
    )
    return Endpoints({endpoint.id: endpoint for endpoint in endpoints}, profiles)


def no_secrets(_draft: EndpointDraft, _place: Place) -> tuple[EndpointSecret, ...]:
    """The secrets of an endpoint for a program that verifies nothing: none are asked for."""
    return ()


class AllSecrets:
    """Gets every secret, and refuses one that two organizations have.

    Args:
        fetcher: gets one.
    """

    def __init__(self, fetcher: SecretFetcher) -> None:
        self._fetcher = fetcher
        self._owners: dict[Secret, str] = {}

    def of(self, draft: EndpointDraft, place: Place) -> tuple[EndpointSecret, ...]:
        """All secrets of an endpoint.

        Raises:
            SettingsError: one can't be had, or is useless.
        """
        return tuple(self._secret(entry, draft, place) for entry in draft.secrets)

    def _secret(self, entry: SecretEntry, draft: EndpointDraft, place: Place) -> EndpointSecret:
        value = self._fetcher.fetch(entry.source, draft.scheme, place)
        owner = self._owners.setdefault(value, draft.organization_id)
        if owner != draft.organization_id:
            raise foreign_secret(owner, place)
        return EndpointSecret(value, entry.until)


def _endpoint(
    draft: EndpointDraft, secrets: tuple[EndpointSecret, ...], profile: OrganizationProfile
) -> Endpoint:
    return Endpoint(
        id=draft.id,
        organization_id=draft.organization_id,
        secrets=secrets,
        scheme=draft.scheme,
        weight=profile.weight,
        concurrency=profile.concurrency,
        settings=draft.settings,
    )


def _tables(text: str, path: Path) -> list[Any]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise _syntax_error(text, path, exc) from None
    except RecursionError:
        raise blaming(path, None, "valid TOML", "brackets nested too deeply") from None
    except ValueError:  # Python's own, which says no line
        raise blaming(path, None, "valid TOML", "a number of too many digits") from None
    for key in document:
        if key != ARRAY:
            line = TableLines(text, ARRAY).top(key)
            got = f"the key {shown(key)}{nearest(key, [ARRAY])}"
            raise blaming(path, line, "only [[endpoint]] tables", got)
    tables = document.get(ARRAY)
    if not isinstance(tables, list) or not tables:
        raise blaming(path, None, "at least one [[endpoint]] table", "none")
    return tables


def _syntax_error(text: str, path: Path, exc: tomllib.TOMLDecodeError) -> SettingsError:
    # tomllib says what and where, and quotes at most a single character.
    what, _, place = str(exc).rpartition(" (at ")
    found = re.match(r"line (\d+)", place)
    line = int(found.group(1)) if found else text.count("\n") + 1
    return blaming(path, line, "valid TOML", f"a mistake: {what or 'unreadable'}")
