"""The tables of all endpoints files: each file as it last was valid, and none against another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shared.endpoints.endpoint import OrganizationProfile
from shared.endpoints.profiles import ProfileUnion
from shared.endpoints.table import Placed
from shared.endpoints.text import Tables, read_tables
from shared.errors import SettingsError
from shared.files.pace import Pace
from shared.files.plain_text import decoded, no_text
from shared.files.versions import Failure

_Files = Mapping[Path, Tables]


@dataclass(frozen=True, slots=True)
class Choice:
    """The tables that hold.

    Attributes:
        files: the tables of each file, be it as it is or as it was.
        profiles: what they say of each organization, by its id.
        errors: what is wrong with a file as it is.
        is_new: whether these aren't the tables that held before.
    """

    files: _Files
    profiles: Mapping[str, OrganizationProfile]
    errors: Mapping[Path, SettingsError]
    is_new: bool

    @property
    def tables(self) -> list[Placed]:
        """All of them, in the order of the files."""
        return [placed for tables in self.files.values() for placed in tables.placed]


class TablesOfFiles:
    """Reads files anew where they have changed, and chooses which version of each holds."""

    def __init__(self) -> None:
        self._read: dict[Path, Tables | SettingsError] = {}
        self._held: _Files = {}

    def read(self, path: Path, content: bytes | Failure, pace: Pace) -> None:
        """Read a file that has changed.

        Args:
            path: the file.
            content: all of it, or why it can't be read.
            pace: of the work.
        """
        try:
            text = _text(path, content)
            self._read[path] = read_tables(text, path, before=self._held.get(path), pace=pace)
        except SettingsError as exc:
            self._read[path] = exc

    def choose(self, paths: Sequence[Path], pace: Pace) -> Choice:
        """Choose the tables that hold.

        A file that is wrong by itself stays as it last held. One that contradicts others does so
        too if it is the one that has changed, or the later one of several.

        Args:
            paths: the files that there are, all of them read.
            pace: of the work.
        """
        errors = {
            path: found for path in paths if isinstance(found := self._read[path], SettingsError)
        }
        while True:
            files = self._versions(paths, errors)
            # Those that held together before don't contradict each other: they go first.
            old = [path for path in files if files[path] is self._held.get(path)]
            new = [path for path in files if files[path] is not self._held.get(path)]
            union = ProfileUnion()
            contradiction = _join(union, files, [*old, *new], pace)
            if contradiction is None:
                is_new = bool(new) or files.keys() != self._held.keys()
                return Choice(files, union.profiles(), errors, is_new)
            # With its old version in its place another changed one may be the contradiction.
            errors |= contradiction

    def hold(self, choice: Choice) -> None:
        """From now on these hold."""
        self._held = choice.files
        self._read = {path: self._read[path] for path in {**choice.files, **choice.errors}}

    def _versions(self, paths: Sequence[Path], errors: Mapping[Path, SettingsError]) -> _Files:
        files: dict[Path, Tables] = {}
        for path in paths:
            read = self._held.get(path) if path in errors else self._read[path]
            if isinstance(read, Tables):
                files[path] = read
        return files


def _join(
    union: ProfileUnion, files: _Files, order: Sequence[Path], pace: Pace
) -> dict[Path, SettingsError] | None:
    """Join all; gives the file that contradicts those before it, if one does."""
    for path in order:
        for draft, place in files[path].placed:
            try:
                union.add(draft, place)
            except SettingsError as exc:
                return {path: exc}
            pace.breathe()
    return None


def _text(path: Path, content: bytes | Failure) -> str:
    if isinstance(content, Failure):
        why = content.why
    else:
        try:
            return decoded(content)
        except UnicodeDecodeError as exc:
            why = no_text(exc)
    raise SettingsError("ENDPOINTS_FILE", "a readable file", f"{path} ({why})")
